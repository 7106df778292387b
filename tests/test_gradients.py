"""Streamed gradients equal autograd on every architecture, however rows are batched."""

import pytest
import torch
import transformers as tf
from architectures import CONFIGS, VOCABULARY, build
from transformers.modeling_outputs import CausalLMOutput

from hf_prism.gradients import Batch, PerExampleGradients, autograd_gradients, self_check
from hf_prism.sketch import Block, TensorSketch


class Materialised:
    """Whole per-example gradients, by parameter: what the stream must add up to."""

    def __init__(self, batch_size: int, blocks: list[Block]):
        self.gradients = {
            b.name: torch.zeros(batch_size, *((b.columns,) if b.is_vector else (b.rows, b.columns))) for b in blocks
        }

    def add_linear(self, name, inputs, deltas, segments):
        samples = range(len(self.gradients[name]))
        for sample in samples:
            mask = slice(None) if segments is None else segments == sample
            a = (inputs[sample] if segments is None else inputs.flatten(0, -2)[mask]).float()
            delta = (deltas[sample] if segments is None else deltas.flatten(0, -2)[mask]).float()
            self.gradients[name][sample] += delta.T @ a

    def add_embedding(self, name, ids, deltas):
        for sample in range(len(ids)):
            self.gradients[name][sample].index_add_(0, ids[sample], deltas[sample].float())

    def add_vector(self, name, gradients):
        self.gradients[name] += gradients

    def add_gradient(self, name, gradient):
        self.gradients[name][0] += gradient.reshape(self.gradients[name][0].shape)


def rows(lengths: tuple[int, ...] = (7, 13, 10), seed: int = 0) -> tuple[list[list[int]], list[list[bool]]]:
    """Random rows with several supervised spans; the second span of row 1 is one token inside its prompt."""
    generator = torch.Generator().manual_seed(seed)
    ids = [torch.randint(0, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]
    masks = [[position >= length // 2 for position in range(length)] for length in lengths]
    masks[1][3] = True
    masks[0][0] = True  # nothing predicts the first token: it must not count
    return ids, masks


def streamed(
    engine: PerExampleGradients, batch: Batch, **options: bool
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    parts, losses = [], []
    for part in list(batch.rows()) if engine.structure.by_autograd else [batch]:
        total = Materialised(len(part.lengths), engine.structure.blocks)
        losses.append(engine(part, total, **options))
        parts.append(total.gradients)
    return torch.cat(losses), {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def assert_equals_autograd(engine: PerExampleGradients, batch: Batch, **options: bool) -> None:
    losses, gradients = streamed(engine, batch, **options)
    for row, (loss, expected) in enumerate(autograd_gradients(engine.model, batch, engine.structure)):
        assert losses[row].item() == pytest.approx(loss, rel=1e-5)
        norm = torch.cat([g.flatten() for g in expected.values()]).norm()
        for name, block in expected.items():
            error = (gradients[name][row] - block.reshape(gradients[name][row].shape)).norm()
            assert error <= 1e-4 * max(block.norm(), 1e-4 * norm), f"{name}, row {row}"


@pytest.mark.parametrize("checkpointing", [False, True], ids=["stored", "checkpointed"])
@pytest.mark.parametrize("name", CONFIGS)
def test_every_parameter_block_equals_autograd(name, checkpointing):
    model = build(name)
    engine = PerExampleGradients(model)
    assert engine.structure.num_parameters[0] == sum(p.numel() for p in model.parameters())
    assert_equals_autograd(engine, Batch.collate(*rows()), checkpointing=checkpointing)


def test_a_layer_with_one_output_equals_autograd():
    model = build("qwen2-tied")
    model.model.layers[0].mlp.down_proj = torch.nn.Sequential(torch.nn.Linear(48, 1), torch.nn.Linear(1, 32))
    engine = PerExampleGradients(model)
    assert not engine.structure.by_autograd
    batch = Batch.collate(*rows())
    assert_equals_autograd(engine, batch)
    assert self_check(engine, TensorSketch(engine.structure.blocks, 64, seed=0), batch).passed


@pytest.mark.parametrize("name", ["qwen2-tied", "gemma2", "gpt2", "phi2", "mixtral"])
def test_head_in_many_chunks_gives_the_same_gradient(name, monkeypatch):
    monkeypatch.setattr("hf_prism.gradients.LOGITS_BYTES", 4 * VOCABULARY * 3)  # three positions at a time
    assert_equals_autograd(PerExampleGradients(build(name)), Batch.collate(*rows()))


def test_lora_gradients_equal_autograd_when_asked_for_by_name(tmp_path):
    peft = pytest.importorskip("peft")
    model = build("qwen2-tied")
    model.add_adapter(peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], lora_dropout=0.1))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    with pytest.raises(ValueError, match="LoRA adapter.*parameters='lora'"):
        PerExampleGradients(model)
    engine = PerExampleGradients(model, parameters="lora")
    assert {block.name.split(".lora_")[1][0] for block in engine.structure.blocks} == {"A", "B"}
    assert not engine.structure.by_autograd
    assert_equals_autograd(engine, Batch.collate(*rows()))


def test_dora_is_left_to_autograd():
    peft = pytest.importorskip("peft")
    model = build("qwen2-tied")
    model.add_adapter(peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"], use_dora=True))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    assert_equals_autograd(PerExampleGradients(model, parameters="lora"), Batch.collate(*rows()))


def test_a_model_of_ones_own_needs_neither_position_ids_nor_a_plain_head():
    class Backbone(tf.Qwen2Model):
        def forward(self, input_ids, use_cache=None):
            return super().forward(input_ids=input_ids, use_cache=use_cache)

    class Own(tf.Qwen2ForCausalLM):
        def forward(self, input_ids, labels=None, use_cache=None):
            logits = self.lm_head(self.model(input_ids, use_cache=use_cache).last_hidden_state)
            loss = None if labels is None else self.loss_function(logits=logits, labels=labels, vocab_size=VOCABULARY)
            return CausalLMOutput(loss=loss, logits=logits)

    model = build("qwen2-untied")
    model.__class__, model.model.__class__ = Own, Backbone
    model.lm_head = torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.Tanh(), torch.nn.Linear(32, VOCABULARY))
    engine = PerExampleGradients(model.eval())
    assert not engine.structure.by_autograd
    assert_equals_autograd(engine, Batch.collate(*rows()))


@pytest.mark.parametrize("pattern", [r"layers\.1\.", "norm", "embed_tokens", "bias"])
def test_subset_by_name_covers_exactly_the_matching_parameters(pattern):
    model = build("qwen2-untied")
    engine = PerExampleGradients(model, parameters=pattern)
    matching = [name for name, _ in model.named_parameters() if pattern.replace("\\", "") in name]
    assert [block.name for block in engine.structure.blocks] == matching
    assert_equals_autograd(engine, Batch.collate(*rows()))


@pytest.mark.parametrize("name", ["qwen2-tied", "gemma3", "gpt2", "phi2", "mixtral"])
def test_sketch_of_the_stream_equals_the_sketch_of_the_autograd_gradient(name):
    engine = PerExampleGradients(build(name))
    sketch = TensorSketch(engine.structure.blocks, 64, seed=1)
    batch = Batch.collate(*rows())
    expected = [sketch.apply(gradient) for _, gradient in autograd_gradients(engine.model, batch, engine.structure)]
    for row, single in enumerate(batch.rows()):
        total = sketch.accumulator(1)
        engine(single, total)
        assert (total.result()[0] - expected[row]).norm() <= 1e-4 * expected[row].norm()


@pytest.fixture(scope="module")
def engine_and_sketch():
    engine = PerExampleGradients(build("qwen3"))
    return engine, TensorSketch(engine.structure.blocks, 256, seed=0)


def sketches(engine, sketch, batch) -> torch.Tensor:
    total = sketch.accumulator(len(batch.lengths))
    engine(batch, total)
    return total.result()


def test_sketch_is_unchanged_by_batch_size_row_order_padding_and_threads(engine_and_sketch):
    engine, sketch = engine_and_sketch
    ids, masks = rows((7, 30, 12, 19))
    together = sketches(engine, sketch, Batch.collate(ids, masks))

    def assert_same(other):
        assert ((other - together).norm(dim=1) <= 1e-5 * together.norm(dim=1)).all()

    assert_same(torch.cat([sketches(engine, sketch, row) for row in Batch.collate(ids, masks).rows()]))
    assert_same(sketches(engine, sketch, Batch.collate(ids[::-1], masks[::-1])).flip(0))
    longer = Batch.collate([*ids, ids[0] * 8], [*masks, masks[0] * 8])
    assert_same(sketches(engine, sketch, longer)[:4])
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            assert_same(sketches(engine, sketch, Batch.collate(ids, masks)))
    finally:
        torch.set_num_threads(threads)


def test_same_plan_gives_the_same_bits(engine_and_sketch):
    engine, sketch = engine_and_sketch
    batch = Batch.collate(*rows())
    assert torch.equal(sketches(engine, sketch, batch), sketches(engine, sketch, batch))


def test_what_stands_in_the_padding_does_not_matter(engine_and_sketch):
    engine, sketch = engine_and_sketch
    batch = Batch.collate(*rows())
    dirty = batch.input_ids.clone()
    for row, length in enumerate(batch.lengths):
        dirty[row, length:] = VOCABULARY - 1
    other = sketches(engine, sketch, Batch(dirty, batch.supervised, batch.lengths))
    torch.testing.assert_close(other, sketches(engine, sketch, batch), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["qwen2-tied", "gemma2", "gpt2"])
def test_bfloat16_forward_keeps_the_direction(name):
    ids, masks = rows((12, 30, 20))
    exact = PerExampleGradients(build(name))
    sketch = TensorSketch(exact.structure.blocks, 1024, seed=0)
    expected = sketches(exact, sketch, Batch.collate(ids, masks))
    half = PerExampleGradients(build(name).to(torch.bfloat16))
    got = sketches(half, sketch, Batch.collate(ids, masks))
    assert got.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(got, expected).min() >= 0.999


def test_parameters_and_hooks_are_left_as_found():
    model = build("mixtral")
    engine = PerExampleGradients(model)
    engine(next(Batch.collate(*rows()).rows()), Materialised(1, engine.structure.blocks))
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert "forward" not in vars(model.model)


def test_self_check_passes_on_a_right_loss_and_fails_on_a_wrong_one():
    model = build("qwen2-tied")
    engine = PerExampleGradients(model)
    sketch = TensorSketch(engine.structure.blocks, 256, seed=0)
    batch = Batch.collate(*rows())
    assert self_check(engine, sketch, batch).passed
    original = model.loss_function
    model.loss_function = lambda logits, labels, **kwargs: original(logits * 1.05, labels, **kwargs)
    assert not self_check(engine, sketch, batch).passed


def test_self_check_fails_on_streamed_gradients_that_are_not_numbers(monkeypatch):
    engine = PerExampleGradients(build("qwen2-tied"))
    sketch = TensorSketch(engine.structure.blocks, 256, seed=0)
    monkeypatch.setattr("hf_prism.gradients.norm_response", lambda module, x, weight: x * float("nan"))
    assert not self_check(engine, sketch, Batch.collate(*rows())).passed


def test_rows_without_a_supervised_token_are_refused():
    engine = PerExampleGradients(build("qwen2-tied"))
    batch = Batch.collate([[1, 2, 3], [4, 5, 6]], [[False, True, True], [True, False, False]])
    with pytest.raises(ValueError, match=r"Rows \[1\].*no supervised token"):
        engine(batch, Materialised(2, engine.structure.blocks))


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("no_such", "matches no parameter"),
        ("lm_head", "lm_head.weight is tied to a parameter that comes first"),
        ("(", "not a regular expr"),
    ],
)
def test_parameter_choices_that_select_nothing_are_refused(pattern, message):
    with pytest.raises(ValueError, match=message):
        PerExampleGradients(build("qwen2-tied"), parameters=pattern)


def test_a_pass_never_asks_the_device_for_a_value(monkeypatch):
    # Tensors on the meta device have no values: whatever waits for one fails there. Transformers asks once itself,
    # whether position ids restart.
    monkeypatch.setattr("transformers.masking_utils.find_packed_sequence_indices", lambda position_ids: None)
    engine = PerExampleGradients(build("qwen2-tied"))
    engine.model.to("meta")
    sketch = TensorSketch(engine.structure.blocks, 64, 0, "meta")
    total = sketch.accumulator(3)
    losses = engine(Batch.collate(*rows(), device="meta"), total)
    assert losses.shape == (3,) and total.result().shape == (3, 64)


@pytest.mark.cuda
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-4), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("name", ["qwen2-tied", "gemma3", "gpt2"])
def test_cuda_and_cpu_sketches_agree_within_the_error_of_the_dtype(name, dtype, tolerance):
    sketches = []
    for device in ("cpu", "cuda"):
        engine = PerExampleGradients(build(name).to(device, dtype))
        sketch = TensorSketch(engine.structure.blocks, 256, 0, device)
        total = sketch.accumulator(3)
        engine(Batch.collate(*rows(), device=device), total)
        sketches.append(total.result().cpu())
    assert ((sketches[0] - sketches[1]).norm(dim=1) <= tolerance * sketches[0].norm(dim=1)).all()
