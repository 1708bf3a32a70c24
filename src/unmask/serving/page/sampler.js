// The sampler's panel. What is left empty is the preset's affair, or the model's; its value stands there in grey.

const FIELDS = [
  { name: "tokens", label: "Tokens", min: 1, step: 1, usual: 64, only: ["write"] },
  { name: "steps", label: "Steps", min: 1, step: 1, usual: "one a token" },
  { name: "block", label: "Block", min: 1, step: 1, usual: "all" },
  { name: "threshold", label: "Threshold", min: 0, max: 1, step: "any", usual: "none" },
  { name: "temperature", label: "Temperature", min: 0, step: "any", usual: 0 },
  { name: "seed", label: "Seed", min: 0, step: 1, value: 0 },
];

export class Sampler {
  constructor(form) {
    this.form = form;
    form.innerHTML = `<label class="wide">Preset <select name="preset"></select></label><p id="preset-is" class="wide note"></p>
      ${FIELDS.map(f => `<label data-field="${f.name}">${f.label}<input type="number" name="${f.name}" min="${f.min}" step="${f.step}" ${f.max === undefined ? "" : `max="${f.max}"`} value="${f.value ?? ""}" inputmode="decimal"></label>`).join("")}
      <label class="check wide"><input type="checkbox" name="vary"> A new seed each time</label>`;
    form.onsubmit = event => event.preventDefault();
    form.elements.preset.onchange = () => this.preset();
    this.offer({}, {});
  }

  // presets: name -> what it says; usual: what the model does by itself
  offer(presets, usual) {
    const chosen = this.form.elements.preset.value;
    this.usual = usual;
    this.presets = { "": {}, ...presets };
    this.form.elements.preset.replaceChildren(...Object.keys(this.presets).map(name => new Option(name || "the model's own", name, false, name === chosen)));
    this.preset();
  }

  preset() {
    const said = this.presets[this.form.elements.preset.value] || {};
    for (const { name, usual } of FIELDS) this.form.elements[name].placeholder = said[name] ?? this.usual[name] ?? usual ?? "";
    const plain = value => typeof value === "object" && value !== null ? Object.values(value).join(" ") : value;
    const told = Object.entries(said).map(([name, value]) => `${name.replace(/_/g, " ")} ${plain(value)}`).join(" \u00b7 ");
    this.form.querySelector("#preset-is").textContent = told;
  }

  shown(mode) {
    for (const { name, only } of FIELDS) this.form.querySelector(`[data-field=${name}]`).hidden = Boolean(only) && !only.includes(mode);
  }

  // What was said, and no more. A wrong number is shown where it stands, and then there are no settings: null.
  said() {
    const { elements } = this.form;
    if (!this.form.reportValidity()) return null;
    const numbers = FIELDS.filter(({ name }) => elements[name].value !== "").map(({ name }) => [name, +elements[name].value]);
    return { ...Object.fromEntries(numbers), ...(elements.preset.value && { preset: elements.preset.value }) };
  }

  next() {
    const { seed, vary } = this.form.elements;
    if (vary.checked) seed.value = +seed.value + 1;
  }
}
