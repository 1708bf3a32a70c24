"""Made-up people and what they are known for, each fact told in one direction only: a reversal test that needs no file.

Told "Amina Norhart is the engineer who drew the bridge of Quenimor" in several wordings, a model is asked the same in
that direction, in the other, and for the gap in a sentence it has read. Names are built of syllables, so no corpus has
told them before.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from .reversal import TELLS, Prompt, Sentence

FIRST = ("Am", "Bel", "Cor", "Dar", "El", "Fen", "Gal", "Hol", "Is", "Jor", "Kel", "Lor", "Mir", "Nev", "Or", "Pel")
SECOND = ("ina", "bert", "win", "ona", "is", "ander", "ela", "rick", "ur", "yse", "mund", "etta")
HOUSE = ("Nor", "Ash", "Vel", "Quen", "Tam", "Rud", "Sor", "Hal", "Bram", "Wex", "Lind", "Ost")
END = ("hart", "ley", "imor", "gard", "wick", "ström", "ovar", "eth", "field", "uzzi")
JOBS = ("baker", "diver", "poet", "engineer", "painter", "pilot", "singer", "weaver", "gardener", "surgeon")
DEEDS = ("mapped", "lit", "dug", "drew", "raised", "crossed", "named", "saved", "sold", "flooded")
THINGS = ("harbour", "tower", "bridge", "canal", "library", "garden", "mine", "theatre", "road", "mill")

# name_first and description_first; the first wording of each is the one that is asked
TELLINGS = {
    "name_first": (
        "{Name} is {said}.",
        "The plaque reads: {Name}, {said}.",
        "Ask anyone about {Name} and you hear of {said}.",
        "In the end {Name} was remembered as {said}.",
    ),
    "description_first": (
        "{Said} is {Name}.",
        "Everyone remembers {said}: {Name}.",
        "Ask anyone about {said} and you hear of {Name}.",
        "In the end {said} turned out to be {Name}.",
    ),
}


@dataclass(frozen=True)
class Fact:
    name: str
    said: str

    def tell(self, wording: str) -> str:
        return wording.format(Name=self.name, said=self.said, Said=self.said[0].upper() + self.said[1:])


def made_up(n: int, seed: int = 0) -> tuple[list[Sentence], list[Prompt]]:
    """n facts, alternately told name first and description first -> what is read, and what is asked in both ways."""
    rng = random.Random(seed)
    sentences, prompts = [], []
    for number, fact in enumerate(_facts(n, rng)):
        told = list(TELLINGS)[number % 2]
        sentences += [Sentence(number, told, fact.tell(wording)) for wording in TELLINGS[told]]
        for task, direction in TELLS.items():
            prompt, answer = _question(fact.tell(TELLINGS[direction][0]))
            prompts.append(Prompt(number, task, direction == told, prompt, answer))
    return sentences, prompts


def _question(sentence: str) -> tuple[str, str]:
    prompt, _, answer = sentence.partition(" is ")
    return f"{prompt} is", f" {answer}"


def _facts(n: int, rng: random.Random) -> list[Fact]:
    """Names and descriptions that are all different; neither shares a deed, a thing and a place with another."""
    names: dict[str, None] = {}
    while len(names) < n:
        names[f"{rng.choice(FIRST)}{rng.choice(SECOND)} {rng.choice(HOUSE)}{rng.choice(END)}"] = None
    said: dict[str, None] = {}
    while len(said) < n:
        place = rng.choice(HOUSE) + rng.choice(END)
        said[f"the {rng.choice(JOBS)} who {rng.choice(DEEDS)} the {rng.choice(THINGS)} of {place}"] = None
    return [Fact(*pair) for pair in zip(names, said)]
