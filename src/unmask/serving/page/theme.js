// Light, dark, or as the system has it; the choice stays in this browser.

const CHOICES = { auto: "as the system has them", light: "light", dark: "dark" }, KEPT = "unmask-theme";
const SHAPES = {
  auto: `<path d="M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18zm0 2v14a7 7 0 0 1 0-14z"/>`,
  light: `<path d="M12 7.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9zM11 2h2v3h-2zm0 17h2v3h-2zM2 11h3v2H2zm17 0h3v2h-3zM4.2 5.6l1.4-1.4 2.1 2.1-1.4 1.4zm12.1 12.1 1.4-1.4 2.1 2.1-1.4 1.4zM5.6 19.8l-1.4-1.4 2.1-2.1 1.4 1.4zM17.7 7.7l-1.4-1.4 2.1-2.1 1.4 1.4z"/>`,
  dark: `<path d="M14.5 3.2A9 9 0 1 0 20.8 14 7.5 7.5 0 0 1 14.5 3.2z"/>`,
};

export function theme(button) {
  const names = Object.keys(CHOICES);
  const set = name => {
    document.documentElement.dataset.theme = name;
    button.innerHTML = `<svg viewBox="0 0 24 24" aria-hidden="true">${SHAPES[name]}</svg>`;
    button.setAttribute("aria-label", `Colours: ${CHOICES[name]}`);
    button.title = `Colours: ${CHOICES[name]}`;
    localStorage.setItem(KEPT, name);
  };
  button.onclick = () => set(names[(names.indexOf(document.documentElement.dataset.theme) + 1) % names.length]);
  const kept = localStorage.getItem(KEPT);
  set(names.includes(kept) ? kept : "auto");
}
