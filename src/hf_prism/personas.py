"""People for whom a generator is asked to write: the persona strategy, a control (PAPER: it varies words, not reasoning)."""

from __future__ import annotations

from pathlib import Path


PERSONAS = (
    "a baker who opens her shop at four in the morning",
    "a retired railway engineer who builds model trains",
    "a nurse on the night shift of a small hospital",
    "a teenager who saves for a second-hand guitar",
    "a beekeeper with forty hives in the hills",
    "a marathon runner who plans every training week",
    "a librarian who sorts donated books",
    "a fisherman on a northern coast",
    "a city planner who designs bus lines",
    "a chess coach at a primary school",
    "a farmer who grows potatoes and onions",
    "an astronomer who waits for clear nights",
    "a carpenter who makes staircases to measure",
    "a grandmother who knits for eleven grandchildren",
    "a pharmacist who prepares ointments",
    "a taxi driver who knows every shortcut",
    "a florist before a large wedding",
    "a software tester who likes odd cases",
    "a cook in a school canteen",
    "a stamp collector who trades by post",
    "a geologist who maps old mines",
    "a swimming teacher with three groups",
    "an accountant of a theatre",
    "a gardener in a public park",
    "a pilot of a small cargo plane",
    "a tailor who buys cloth by the bolt",
    "a student who shares a flat with four others",
    "a zookeeper who feeds the penguins",
    "a potter who fires two kilns a week",
    "a referee of amateur football",
    "a translator who is paid by the page",
    "a mountain guide who plans supplies",
    "a car mechanic with an overfull yard",
    "a museum guard who counts visitors",
    "a violin maker who waits for wood to dry",
    "a meteorologist at an airport",
    "a shepherd with two hundred sheep",
    "an electrician who wires old houses",
    "a parent who organises a birthday party",
    "a cheese maker who turns every wheel by hand",
    "a cyclist who delivers parcels",
    "a printer of posters and leaflets",
    "a veterinarian in a village",
    "a lighthouse keeper who writes a diary",
    "a choir leader who copies scores",
    "a street vendor of roasted chestnuts",
    "a statistician who distrusts averages",
    "a sailor on a long ocean race",
)


def load_personas(path: str | Path) -> tuple[str, ...]:
    """Read personas from a text file, one a line.

    Raises:
        ValueError: no such file, or nothing in it.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"the file of personas {path} does not exist.")
    lines = tuple(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
    if not lines:
        raise ValueError(f"the file of personas {path} holds none: write one a line.")
    return lines
