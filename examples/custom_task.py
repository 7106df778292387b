# /// script
# requires-python = ">=3.11"
# dependencies = ["hf-prism"]
# ///
"""A task of your own for the synthesis loop: here, words to spell backwards. Run as: python examples/custom_task.py

The two models are stand-ins written down here; give `hf_prism.server.ServerGenerator(...)` for real ones.
"""

from random import Random
from tempfile import TemporaryDirectory

from hf_prism import GradientFeaturizer, PrismaticSynthesizer
from hf_prism.generation import Response
from hf_prism.tasks.lexicon import OBJECTS
from hf_prism.tasks.task import Task
from hf_prism.verification import label_vote


class BackwardsTask(Task):
    name, sections = "backwards", ("Word",)

    def instructions(self, shown, wanted):
        return f"Below are {shown} words. Write {wanted} new words, each between lines of --- and after [[Word]]."

    def solution_prompt(self, candidate):
        return f"Spell {candidate['word']} backwards. Write nothing else."

    def vote(self, candidate, solutions):
        return label_vote([solution and solution.strip().lower() for solution in solutions])

    def row(self, candidate, solution, answer):
        return {"prompt": self.solution_prompt(candidate), "completion": answer, "answer": answer}

    def candidate(self, row):
        return {"word": row["word"] if "word" in row else row["prompt"].split()[1]}

    def seed_row(self, row, where):
        return self.row(row, "", row["word"][::-1])


class Stand:
    check = close = lambda self: None

    def __init__(self, name, answer):
        self.name, self.answer = name, answer

    def generate(self, requests):
        yield from ((i, Response(self.answer(request))) for i, request in enumerate(requests))


writer = Stand("words", lambda request: f"[[Word]]\n{Random(request.seed).choice(OBJECTS)}\n---")
speller = Stand("speller", lambda request: request.messages[0]["content"].split()[1][::-1])
loop = PrismaticSynthesizer(BackwardsTask(), writer, speller, GradientFeaturizer("embedded"), requests=20, shots=3)
with TemporaryDirectory() as folder:
    done = loop.run([{"word": word} for word in OBJECTS[:10]], f"{folder}/run", target_size=20)
    for row in done.dataset.select(range(10, 13)):
        print(row["prompt"], "=>", row["completion"])
