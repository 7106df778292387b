"""Families of word problems: the wordings of each, and the function that poses and solves one problem.

A family function takes the name of a skeleton, a random stream for the numbers or facts, the largest number to begin
with, and a `Voice`, which makes every choice of words. What it draws from the one stream never depends on the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from random import Random
from typing import TypeVar

from .lexicon import CONTAINERS


Option = TypeVar("Option")


@dataclass(frozen=True)
class Problem:
    """A posed and solved problem; `numbers` are those that fill the skeleton (none where it reasons over words)."""

    prompt: str
    steps: list[str]
    answer: str
    numbers: tuple[int, ...] = ()


@dataclass(frozen=True)
class Voice:
    """The surface of one row: whom and what it speaks of, and in which words."""

    random: Random
    names: Sequence[str]
    objects: Sequence[str]
    wordings: int | None

    def say(self, wordings: Sequence[str], **slots: object) -> str:
        return self.pick(wordings[: self.wordings]).format(**slots)

    def people(self, count: int) -> list[str]:
        return self.pick_different(self.names, count)

    def thing(self) -> str:
        return self.pick(self.objects)

    def pick(self, options: Sequence[Option]) -> Option:
        return self.random.choice(options)

    def pick_different(self, options: Sequence[Option], count: int) -> list[Option]:
        return self.random.sample(options, count)


CLOSING = (
    "The answer is \\boxed{{{answer}}}.",
    "So the answer is \\boxed{{{answer}}}.",
    "Answer: \\boxed{{{answer}}}",
)
WORKING = ("{sum}.", "We get {sum}.", "Now {sum}.", "This makes {sum}.")

# -- story: someone's things come and go ------------------------------------------------------------------------------

HAVE = (
    "{who} has {a} {things}.",
    "There are {a} {things} on the table of {who}.",
    "{who} starts the day with {a} {things}.",
    "In the morning {who} counts {a} {things}.",
)
GAIN = (
    "{who} buys {b} more.",
    "A friend gives {who} {b} more {things}.",
    "Then {who} finds {b} other {things}.",
    "After lunch {who} gets {b} new {things}.",
)
LOSE = (
    "{who} gives {b} of them away.",
    "Then {who} loses {b} {things}.",
    "{who} sells {b} {things} at the market.",
    "Later {b} of the {things} break.",
)
EVENTS = {"+": GAIN, "-": LOSE}
HOW_MANY = (
    "How many {things} does {who} have now?",
    "How many {things} are there in the end?",
    "Find the number of {things} that {who} has at the end.",
    "What is the final number of {things}?",
)
START = ("{who} starts with {a} {things}.", "At first there are {a} {things}.", "We start from {a}.")


def story(skeleton: str, draw: Random, largest: int, voice: Voice) -> Problem:
    """Each sign of the skeleton is one event: `+-` is a gain followed by a loss."""
    (who,), things = voice.people(1), voice.thing()
    total = draw.randint(10, largest)
    numbers = [total]
    prompt = [voice.say(HAVE, who=who, a=total, things=things)]
    steps = [voice.say(START, who=who, a=total, things=things)]
    for sign in skeleton:
        change = draw.randint(2, largest // 2) if sign == "+" else draw.randint(1, total * 3 // 4)
        sentence, step, total = _event(sign, total, change, voice, who=who, things=things)
        prompt.append(sentence)
        steps.append(step)
        numbers.append(change)
    prompt.append(voice.say(HOW_MANY, who=who, things=things))
    return Problem(" ".join(prompt), steps, str(total), tuple(numbers))


def _event(sign: str, total: int, change: int, voice: Voice, **slots: str) -> tuple[str, str, int]:
    after = total + change if sign == "+" else total - change
    told = voice.say(EVENTS[sign], b=change, **slots)
    return told, voice.say(WORKING, sum=f"{total} {sign} {change} = {after}"), after


# -- groups: equal groups, and what is over or missing ----------------------------------------------------------------

GROUPS = (
    "{who} has {a} {boxes} with {b} {things} in each.",
    "There are {a} {boxes} and each of them holds {b} {things}.",
    "{who} fills {a} {boxes} with {b} {things} each.",
)
SHARE = (
    "{who} shares {a} {things} equally among {b} {boxes}. How many {things} are in each?",
    "{who} puts {a} {things} into {b} {boxes}, the same number in each. How many go into each?",
    "There are {a} {things} in {b} equal {boxes}. How many {things} does each of them hold?",
)
IN_ALL = (
    "How many {things} are there in all?",
    "How many {things} does {who} have altogether?",
    "What is the total number of {things}?",
)
EACH_TIMES = ("{a} {boxes} of {b} {things}: {sum}.", "The {boxes} hold {sum} {things}.", "We multiply: {sum}.")
EACH_SHARE = ("We divide: {sum}.", "Each part is {sum} {things}.", "Equal shares: {sum}.")


def groups(skeleton: str, draw: Random, largest: int, voice: Voice) -> Problem:
    """`*` multiplies, `/` shares out, and a sign after `*` adds or takes away single things."""
    (who,), things, boxes = voice.people(1), voice.thing(), voice.say(CONTAINERS)
    a, b = draw.randint(2, 10), draw.randint(2, 10)
    total = a * b
    if skeleton == "/":
        prompt = voice.say(SHARE, who=who, a=total, b=b, things=things, boxes=boxes)
        steps = [voice.say(EACH_SHARE, sum=f"{total} / {b} = {a}", things=things)]
        return Problem(prompt, steps, str(a), (total, b))
    numbers = [a, b]
    prompt = [voice.say(GROUPS, who=who, a=a, b=b, things=things, boxes=boxes)]
    steps = [voice.say(EACH_TIMES, sum=f"{a} * {b} = {total}", a=a, b=b, things=things, boxes=boxes)]
    for sign in skeleton[1:]:
        change = draw.randint(2, largest // 2) if sign == "+" else draw.randint(1, total - 1)
        sentence, step, total = _event(sign, total, change, voice, who=who, things=things)
        prompt.append(sentence)
        steps.append(step)
        numbers.append(change)
    prompt.append(voice.say(IN_ALL, who=who, things=things))
    return Problem(" ".join(prompt), steps, str(total), tuple(numbers))


# -- comparison: two people, one told through the other ---------------------------------------------------------------

COMPARED = {
    "more": ("{other} has {b} more than {who}.", "{other} owns {b} more {things} than {who} does."),
    "fewer": ("{other} has {b} fewer than {who}.", "{other} owns {b} fewer {things} than {who} does."),
    "times": ("{other} has {b} times as many as {who}.", "{other} owns {b} times the {things} of {who}."),
}
SIGNS = {"more": "+", "fewer": "-", "times": "*"}
OTHER_HAS = ("How many {things} does {other} have?", "Find the number of {things} that {other} has.")
BOTH_HAVE = ("How many {things} do {who} and {other} have together?", "How many {things} do they have in all?")
SO_OTHER = ("{other} has {sum} {things}.", "For {other}: {sum}.", "The number of {other} is {sum}.")
SO_BOTH = ("Together they have {sum}.", "In all: {sum}.", "Both together: {sum}.")


def comparison(skeleton: str, draw: Random, largest: int, voice: Voice) -> Problem:
    """`more`, `fewer` or `times`; a skeleton that ends in ` total` asks for both together."""
    (who, other), things = voice.people(2), voice.thing()
    relation, _, total = skeleton.partition(" ")
    a = draw.randint(5, largest // 3 if relation == "times" else largest)
    b = {"more": draw.randint(2, largest // 2), "fewer": draw.randint(1, a - 1), "times": draw.randint(2, 5)}[relation]
    result = {"more": a + b, "fewer": a - b, "times": a * b}[relation]
    slots = {"who": who, "other": other, "things": things}
    prompt = [
        voice.say(HAVE[:1] + HAVE[2:], a=a, **slots),
        voice.say(COMPARED[relation], b=b, **slots),
        voice.say(BOTH_HAVE if total else OTHER_HAS, **slots),
    ]
    steps = [voice.say(SO_OTHER, sum=f"{a} {SIGNS[relation]} {b} = {result}", **slots)]
    if total:
        steps.append(voice.say(SO_BOTH, sum=f"{a} + {result} = {a + result}"))
    return Problem(" ".join(prompt), steps, str(a + result if total else result), (a, b))


# -- sequence: what comes next ----------------------------------------------------------------------------------------

NEXT = (
    "What number comes next: {terms}, ?",
    "Find the next number of the sequence {terms}.",
    "{who} writes the numbers {terms}. What does {who} write next?",
    "Continue the pattern {terms} by one number.",
)
RULE = ("Each number is {rule} the one before.", "The rule: every term is {rule} the last one.")


def sequence(skeleton: str, draw: Random, largest: int, voice: Voice) -> Problem:
    """Four terms of a sequence that grows by a step (`up`), falls by one (`down`) or doubles (`double`)."""
    step = draw.randint(2, 12)
    start = draw.randint(1, 10 if skeleton == "double" else largest)
    rules = {
        "up": (lambda term: term + step, f"{step} more than", f"+ {step}"),
        "down": (lambda term: term - step, f"{step} less than", f"- {step}"),
        "double": (lambda term: 2 * term, "twice", "* 2"),
    }
    follow, rule, work = rules[skeleton]
    terms = [start + 4 * step if skeleton == "down" else start]
    for _ in range(4):
        terms.append(follow(terms[-1]))
    prompt = voice.say(NEXT, terms=", ".join(map(str, terms[:4])), who=voice.people(1)[0])
    steps = [voice.say(RULE, rule=rule), voice.say(WORKING, sum=f"{terms[3]} {work} = {terms[4]}")]
    return Problem(prompt, steps, str(terms[4]), tuple(terms[:4]))


# -- ordering: sort, then read off ------------------------------------------------------------------------------------

LIST = ("{who} writes down {terms}.", "Here are some numbers: {terms}.", "On the cards of {who} stand {terms}.")
WANTED = {
    "largest": ("Which number is the largest?", "Find the largest of them."),
    "smallest": ("Which number is the smallest?", "Find the smallest of them."),
    "second largest": ("Which number is the second largest?", "Find the second largest of them."),
    "sorted": ("Write them in order from smallest to largest.", "Sort them, the smallest first."),
}
IN_ORDER = ("In order: {terms}.", "From smallest to largest: {terms}.", "Sorted they are {terms}.")


def ordering(skeleton: str, draw: Random, largest: int, voice: Voice) -> Problem:
    """Four distinct numbers, sorted in the solution; the skeleton says which of them is wanted."""
    terms = draw.sample(range(1, largest + 1), 4)
    ranked = sorted(terms)
    wanted = {"largest": ranked[3:], "smallest": ranked[:1], "second largest": ranked[2:3], "sorted": ranked}[skeleton]
    prompt = voice.say(LIST, who=voice.people(1)[0], terms=_listing(terms)) + " " + voice.say(WANTED[skeleton])
    return Problem(prompt, [voice.say(IN_ORDER, terms=_listing(ranked))], _listing(wanted), tuple(terms))


def _listing(terms: Sequence[int]) -> str:
    return ", ".join(map(str, terms))


# -- calendar: arithmetic that wraps round ----------------------------------------------------------------------------

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
WEEKDAY = (
    "Today is {day}. What day of the week {tense} it {n} days {when}?",
    "{who} arrives on a {day}. Name the day of the week {n} days {when}.",
    "If today is {day}, which day {tense} it {n} days {when}?",
)
HOUR = (
    "It is {h} o'clock. {who} waits for {n} hours. What time is it then on a 12-hour clock?",
    "{who} leaves at {h} o'clock and travels for {n} hours. At what hour of a 12-hour clock does {who} arrive?",
    "A clock shows {h}. What hour does it show {n} hours later?",
)


def calendar(skeleton: str, draw: Random, largest: int, voice: Voice) -> Problem:
    """Days of the week `later` or `earlier`, counted one by one after whole weeks, or hours on a `clock`."""
    (who,) = voice.people(1)
    if skeleton == "clock":
        hour, count = draw.randint(1, 12), draw.randint(1, 11)
        after, answer = hour + count, (hour + count - 1) % 12 + 1
        steps = [f"{hour} + {count} = {after}."] + ([f"{after} - 12 = {answer}."] if after > 12 else [])
        return Problem(voice.say(HOUR, who=who, h=hour, n=count), steps, str(answer), (hour, count))
    start, count = draw.randrange(7), draw.randint(2, 30)
    step, when, tense = (1, "later", "is") if skeleton == "later" else (-1, "earlier", "was")
    weeks, rest = divmod(count, 7)
    path = [DAYS[(start + step * day) % 7] for day in range(rest + 1)]
    prompt = voice.say(WEEKDAY, who=who, day=DAYS[start], n=count, when=when, tense=tense)
    steps = [f"{count} days are {weeks} weeks and {rest} days.", f"From the first day on: {', '.join(path)}."]
    return Problem(prompt, steps, path[-1], (start, count))


# -- units: conversion there, back, and of a mixed quantity -----------------------------------------------------------

UNITS = {  # how many of the last make one of the first
    3: (("yard", "yards", "feet"),),
    4: (("gallon", "gallons", "quarts"), ("year", "years", "seasons")),
    7: (("week", "weeks", "days"),),
    10: (("centimeter", "centimeters", "millimeters"), ("dime", "dimes", "cents")),
    12: (("foot", "feet", "inches"), ("year", "years", "months")),
    60: (("hour", "hours", "minutes"), ("minute", "minutes", "seconds")),
    100: (("meter", "meters", "centimeters"), ("dollar", "dollars", "cents")),
}
CONVERT = (
    "How many {to} are {amount}?",
    "Convert {amount} into {to}.",
    "{who} needs {amount}. How many {to} is that?",
)
FACTOR = ("One {one} is {n} {small}.", "{n} {small} make one {one}.", "There are {n} {small} in a {one}.")


def units(skeleton: str, draw: Random, largest: int, voice: Voice) -> Problem:
    """From big units to small (`*`), from small to big (`/`), or a sum of both into small (`*+`)."""
    n = draw.choice(list(UNITS))
    one, big, small = voice.pick(UNITS[n])
    a, b = draw.randint(2, 12), draw.randint(2, 60)
    whole = n * a
    multiply, divide, add = f"{a} * {n} = {whole}", f"{whole} / {n} = {a}", f"{whole} + {b} = {whole + b}"
    amount, to, sums, answer, numbers = {
        "*": (f"{a} {big}", small, [multiply], whole, (n, a)),
        "/": (f"{whole} {small}", big, [divide], a, (n, a)),
        "*+": (f"{a} {big} and {b} {small}", small, [multiply, add], whole + b, (n, a, b)),
    }[skeleton]
    prompt = voice.say(CONVERT, who=voice.people(1)[0], amount=amount, to=to)
    steps = [voice.say(FACTOR, n=n, one=one, small=small)] + [voice.say(WORKING, sum=each) for each in sums]
    return Problem(prompt, steps, str(answer), numbers)


# -- entailment: does the premise settle the hypothesis? --------------------------------------------------------------

LABELS = ("entailment", "contradiction", "neutral")
RELATIONS = (("taller", "shorter"), ("older", "younger"), ("faster", "slower"), ("heavier", "lighter"))
KINDS = ("dog", "cat", "bird", "teacher", "student", "doctor", "farmer", "singer", "driver", "horse", "baker", "nurse")
TRAITS = (
    "happy",
    "quiet",
    "strong",
    "clever",
    "tired",
    "hungry",
    "careful",
    "brave",
    "kind",
    "famous",
    "rich",
    "proud",
)
TELL = ("{first} is {more} than {second}.", "{second} is {less} than {first}.")
RULES = {"all": "Every {kind} is {trait}.", "no": "No {kind} is {trait}."}
MEMBER = "{who} is a {kind}."
CLAIM = "{who} {has} {trait}."
ASK = (
    "Premise: {premise}\nHypothesis: {hypothesis}\nEntailment, contradiction or neutral?",
    "{premise} Given this, is it an entailment, a contradiction or neutral that: {hypothesis}",
    "Read: {premise} Statement: {hypothesis} Label it as entailment, contradiction or neutral.",
)
BECAUSE = {
    "entailment": ("The premise says so.", "This must be true."),
    "contradiction": ("The premise says the opposite.", "This cannot be true."),
    "neutral": ("The premise does not settle it.", "This may be true or not."),
}


def entailment(skeleton: str, draw: Random, largest: int, voice: Voice) -> Problem:
    """An `order` of three people (transitivity), or what `all` or `no` members of a kind have in common."""
    label = draw.choice(LABELS)
    premise, hypothesis, known = (_order if skeleton == "order" else _kind)(skeleton, label, draw, voice)
    prompt = voice.say(ASK, premise=premise, hypothesis=hypothesis)
    return Problem(prompt, [known, voice.say(BECAUSE[label])], label)


def _order(skeleton: str, label: str, draw: Random, voice: Voice) -> tuple[str, str, str]:
    x, y, z = voice.people(3)
    more, less = voice.pick(RELATIONS)

    def tell(first: str, second: str) -> str:
        return voice.say(TELL, first=first, second=second, more=more, less=less)

    facts = [(x, y), (x, z)] if label == "neutral" else [(x, y), (y, z)]
    claim = {"entailment": (x, z), "contradiction": (z, x), "neutral": draw.choice([(y, z), (z, y)])}[label]
    known = f"{x} is {more} than {y} and {z}." if label == "neutral" else f"From {more} to {less}: {x}, {y}, {z}."
    return " ".join(tell(*fact) for fact in draw.sample(facts, 2)), tell(*claim), known


def _kind(skeleton: str, label: str, draw: Random, voice: Voice) -> tuple[str, str, str]:
    (who,), kind = voice.people(1), voice.pick(KINDS)
    trait, other = voice.pick_different(TRAITS, 2)
    has = "is" if skeleton == "all" else "is not"
    claims = {
        "entailment": has,
        "contradiction": "is not" if has == "is" else "is",
        "neutral": draw.choice(("is", "is not")),
    }
    facts = [RULES[skeleton].format(kind=kind, trait=trait), MEMBER.format(who=who, kind=kind)]
    hypothesis = CLAIM.format(who=who, has=claims[label], trait=other if label == "neutral" else trait)
    return " ".join(draw.sample(facts, 2)), hypothesis, f"So {who} {has} {trait}."


# -- all of them, with their skeletons --------------------------------------------------------------------------------

Family = Callable[[str, Random, int, Voice], Problem]
FAMILIES: dict[str, tuple[Family, tuple[str, ...]]] = {
    "story": (story, ("+", "-", "++", "+-", "-+", "--")),
    "groups": (groups, ("*", "/", "*+", "*-")),
    "comparison": (comparison, ("more", "fewer", "times", "more total", "fewer total", "times total")),
    "sequence": (sequence, ("up", "down", "double")),
    "ordering": (ordering, ("largest", "smallest", "second largest", "sorted")),
    "calendar": (calendar, ("later", "earlier", "clock")),
    "units": (units, ("*", "/", "*+")),
    "entailment": (entailment, ("order", "all", "no")),
}

# Longer chains, a tail of rare kinds for those who ask for them by name. Three losses in a row, or two after a
# product, could leave nothing to lose.
LONGER: dict[str, tuple[str, ...]] = {
    "story": tuple(signs for n in (3, 4) for signs in map("".join, product("+-", repeat=n)) if "---" not in signs),
    "groups": tuple(
        f"*{signs}" for n in (2, 3) for signs in map("".join, product("+-", repeat=n)) if "--" not in signs
    ),
}
