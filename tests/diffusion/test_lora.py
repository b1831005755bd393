"""LoRA files: every layout is applied wholly, at its weight; anything else is refused in one line."""

import json

import pytest
import torch
from safetensors.torch import save_file

from riff import RiffPipeline
from riff.diffusion.sampling import lora_scaled
from riff.utils.errors import ModelError

pytest.importorskip("peft")
ATTENTION = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"
UNET = (f"{ATTENTION}.to_q", f"{ATTENTION}.to_out.0", "mid_block.resnets.0.conv1", "down_blocks.1.attentions.0.proj_in")
TEXT = ("encoder.layers.0.self_attn.q_proj", "encoder.layers.1.mlp.fc1")
RANK = 3


@pytest.fixture
def pipe(mini_checkpoint):
    return RiffPipeline.from_pretrained(mini_checkpoint, device="cpu")


def matrices(pipe, unet=UNET, text=TEXT, rank: int = RANK) -> dict[str, dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    """Random down and up for modules of the UNet and of the text encoder."""
    generator = torch.Generator().manual_seed(0)
    made: dict[str, dict[str, tuple[torch.Tensor, torch.Tensor]]] = {}
    for component, names in {"unet": unet, "text_encoder": text}.items():
        for name in names:
            shape = getattr(pipe.components, component).get_submodule(name).weight.shape
            down = torch.randn(rank, *shape[1:], generator=generator) * 0.2
            up = torch.randn(shape[0], rank, *[1] * (len(shape) - 2), generator=generator) * 0.2
            made.setdefault(component, {})[name] = (down, up)
    return made


def kohya(name: str, component: str) -> str:
    prefix = "lora_unet_" if component == "unet" else "lora_te_text_model_"
    return prefix + name.replace(".", "_")


def first(name: str, component: str) -> str:
    """diffusers' first layout, of attention only."""
    text = {"q_proj": "to_q"}
    parent, _, last = name.removesuffix(".0").rpartition(".")
    middle = ".processor" if component == "unet" else ""
    prefix = "unet." if component == "unet" else "text_encoder.text_model."
    return f"{prefix}{parent}{middle}.{text.get(last, last)}_lora"


LAYOUTS = {
    "kohya": (kohya, ".lora_down.weight", ".lora_up.weight"),
    "peft": (lambda name, component: f"{component}.{name}", ".lora_A.weight", ".lora_B.weight"),
    "peft, named": (lambda name, component: f"{component}.{name}", ".lora_A.default.weight", ".lora_B.default.weight"),
    "diffusers": (lambda name, component: f"{component}.{name}", ".lora.down.weight", ".lora.up.weight"),
    "text_model": (
        lambda name, component: f"{component}.{'text_model.' if component == 'text_encoder' else ''}{name}",
        ".lora_linear_layer.down.weight",
        ".lora_linear_layer.up.weight",
    ),
}


def tensors(made, layout: str = "kohya", alpha: float | None = None) -> dict[str, torch.Tensor]:
    spell, down_end, up_end = LAYOUTS[layout]
    found = {}
    for component, pairs in made.items():
        for name, (down, up) in pairs.items():
            stem = spell(name, component)
            found |= {stem + down_end: down.clone(), stem + up_end: up.clone()}
            if alpha is not None:
                found[f"{stem}.alpha"] = torch.tensor(alpha)
    return found


@torch.no_grad()
def outputs(pipe) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    latents, embeds = torch.randn(1, 8, 4, 8, generator=generator), torch.randn(1, 24, 16, generator=generator)
    unet, text = pipe.components.unet, pipe.components.text_encoder
    return unet(latents, torch.tensor([500]), embeds).sample, text(torch.tensor([[1, 5, 9, 2]])).last_hidden_state


def expected(checkpoint, made, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Of a model into whose weights the products are added."""
    pipe = RiffPipeline.from_pretrained(checkpoint, device="cpu")
    with torch.no_grad():
        for component, pairs in made.items():
            for name, (down, up) in pairs.items():
                weight = getattr(pipe.components, component).get_submodule(name).weight
                weight += scale * torch.einsum("or,r...->o...", up.flatten(1), down)
    return outputs(pipe)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_applied_wholly_to_unet_and_text_encoder(pipe, mini_checkpoint, tmp_path, layout):
    made = matrices(pipe)
    save_file(tensors(made, layout), tmp_path / "x.safetensors")
    pipe.load_lora(tmp_path / "x.safetensors")
    torch.testing.assert_close(outputs(pipe), expected(mini_checkpoint, made), rtol=1e-4, atol=1e-5)


def test_diffusers_first_layout_is_applied_wholly(pipe, mini_checkpoint, tmp_path):
    made = matrices(pipe, unet=UNET[:2], text=TEXT[:1])
    LAYOUTS["first"] = (first, ".down.weight", ".up.weight")
    save_file(tensors(made, "first"), tmp_path / "x.safetensors")
    pipe.load_lora(tmp_path / "x.safetensors")
    torch.testing.assert_close(outputs(pipe), expected(mini_checkpoint, made), rtol=1e-4, atol=1e-5)
    del LAYOUTS["first"]


def test_alpha_over_rank_scales_and_ranks_may_differ(pipe, mini_checkpoint, tmp_path):
    made = matrices(pipe, text=())
    made["text_encoder"] = matrices(pipe, unet=(), rank=5)["text_encoder"]
    made["unet"][UNET[0]] = matrices(pipe, unet=UNET[:1], text=(), rank=1)["unet"][UNET[0]]
    save_file(tensors(made, alpha=2.0), tmp_path / "x.safetensors")
    pipe.load_lora(tmp_path / "x.safetensors")
    scaled = {c: {n: (d, u * 2.0 / len(d)) for n, (d, u) in pairs.items()} for c, pairs in made.items()}
    torch.testing.assert_close(outputs(pipe), expected(mini_checkpoint, scaled), rtol=1e-4, atol=1e-5)


def test_the_alpha_of_diffusers_metadata_is_heeded(pipe, mini_checkpoint, tmp_path):
    made = matrices(pipe, text=())
    said = {"unet.r": RANK, "unet.lora_alpha": 2 * RANK, "unet.rank_pattern": {}, "unet.alpha_pattern": {}}
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(said)}
    save_file(tensors(made, "peft"), tmp_path / "x.safetensors", metadata=metadata)
    pipe.load_lora(tmp_path / "x.safetensors")
    torch.testing.assert_close(outputs(pipe), expected(mini_checkpoint, made, 2.0), rtol=1e-4, atol=1e-5)


def test_a_weight_scales_both_parts_and_zero_is_the_model_itself(pipe, mini_checkpoint, tmp_path):
    made = matrices(pipe)
    plain = outputs(pipe)
    save_file(tensors(made), tmp_path / "x.safetensors")
    pipe.load_lora(tmp_path / "x.safetensors", weight=0.0)
    assert all(torch.equal(*pair) for pair in zip(outputs(pipe), plain, strict=True))
    again = RiffPipeline.from_pretrained(mini_checkpoint, device="cpu")
    again.load_lora(tmp_path / "x.safetensors", weight=0.5)
    torch.testing.assert_close(outputs(again), expected(mini_checkpoint, made, 0.5), rtol=1e-4, atol=1e-5)


def test_a_second_lora_adds_to_the_first_and_each_keeps_its_weight(pipe, mini_checkpoint, tmp_path):
    one, other = matrices(pipe, text=()), matrices(pipe, unet=UNET[:1])
    save_file(tensors(one), tmp_path / "one.safetensors")
    save_file(tensors(other), tmp_path / "other.safetensors")
    pipe.load_lora(tmp_path / "one.safetensors", weight=0.5)
    pipe.load_lora(tmp_path / "other.safetensors", weight=2.0)
    sums = {c: {n: (d, 2.0 * u) for n, (d, u) in pairs.items()} for c, pairs in other.items()}
    for name, (down, up) in one["unet"].items():
        before = sums["unet"].get(name, (down[:0], up[:, :0]))
        sums["unet"][name] = (torch.cat([before[0], down]), torch.cat([before[1], 0.5 * up], dim=1))
    torch.testing.assert_close(outputs(pipe), expected(mini_checkpoint, sums), rtol=1e-4, atol=1e-5)


def test_a_scale_of_zero_for_a_while_keeps_the_weight(pipe, tmp_path):
    plain = outputs(pipe)[0]
    save_file(tensors(matrices(pipe, text=())), tmp_path / "x.safetensors")
    pipe.load_lora(tmp_path / "x.safetensors", weight=0.5)
    loaded = outputs(pipe)[0]
    with lora_scaled(pipe.components.unet, 0.0):
        assert torch.equal(outputs(pipe)[0], plain)
    assert torch.equal(outputs(pipe)[0], loaded)


def test_a_station_of_weight_zero_reads_its_prompt_without_the_lora(pipe, tmp_path):
    reading = pipe.model.interpret("jazz piano", bpm=120)
    plain = pipe.model.conditions([[reading, reading]], [2.0, 2.0], ["drums", ""]).prompt_embeds
    save_file(tensors(matrices(pipe)), tmp_path / "x.safetensors")
    pipe.load_lora(tmp_path / "x.safetensors")
    weights = torch.tensor([0.0, 1.0])
    found = pipe.model.conditions([[reading, reading]], [2.0, 2.0], ["drums", ""], lora_weights=weights).prompt_embeds
    assert torch.equal(found[:, 0], plain[:, 0])
    assert not torch.allclose(found[:, 1], plain[:, 1])


def other_kind(*parts: str):
    return lambda made: {f"{kohya(UNET[0], 'unet')}.{part}": torch.ones(4, 4) for part in parts}


def changed(change):
    def make(made):
        found = tensors(made)
        change(found)
        return found

    return make


STEM = kohya(UNET[0], "unet")
REFUSED = {
    "DoRA": (changed(lambda t: t.update({f"{STEM}.dora_scale": torch.ones(16, 1)})), "is a DoRA file"),
    "DoRA of peft": (changed(lambda t: t.update({f"{STEM}.lora_magnitude_vector": torch.ones(16)})), "is a DoRA file"),
    "LoHa": (other_kind("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"), "is a LoHa file"),
    "LoKr": (other_kind("lokr_w1", "lokr_w2"), "is a LoKr file"),
    "OFT": (other_kind("oft_blocks"), "is a OFT file"),
    "differences": (other_kind("diff"), "is a full differences file"),
    "Tucker": (changed(lambda t: t.update({f"{STEM}.lora_mid.weight": torch.ones(3, 3)})), "Tucker"),
    "half of the names": (
        lambda made: {k.replace("down_blocks", "lower_blocks"): v for k, v in tensors(made).items()},
        "6 of its 12 tensors have no place",
    ),
    "another encoder": (
        changed(lambda t: t.update({"lora_te2_text_model_x.lora_down.weight": torch.ones(3, 3)})),
        "1 of its 13 tensors have no place",
    ),
    "a bias": (changed(lambda t: t.update({f"{STEM}.lora_B.bias": torch.ones(3)})), "have no place"),
    "one matrix": (changed(lambda t: t.pop(f"{STEM}.lora_up.weight")), "only one of the two matrices"),
    "alpha alone": (lambda made: {f"{STEM}.alpha": torch.tensor(1.0)}, "only one of the two matrices"),
    "wide": (changed(lambda t: t.update({f"{STEM}.lora_down.weight": torch.ones(3, 99)})), "weight there is"),
    "flat": (changed(lambda t: t.update({f"{STEM}.lora_down.weight": torch.ones(3)})), "weight there is"),
    "no rank": (
        changed(
            lambda t: t.update(
                {f"{STEM}.lora_down.weight": torch.ones(0, 16), f"{STEM}.lora_up.weight": torch.ones(16, 0)}
            )
        ),
        "weight there is",
    ),
    "odd alpha": (changed(lambda t: t.update({f"{STEM}.alpha": torch.ones(2)})), "cannot be loaded"),
    "nan": (changed(lambda t: t[f"{STEM}.lora_up.weight"].fill_(torch.nan)), "NaN"),
    "empty": (lambda made: {}, "is empty"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_applied_wholly_is_refused_in_one_line(pipe, tmp_path, case):
    make, message = REFUSED[case]
    plain = outputs(pipe)
    save_file(make(matrices(pipe)), tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match=message) as caught:
        pipe.load_lora(tmp_path / "x.safetensors")
    assert "\n" not in str(caught.value) and "x.safetensors" in str(caught.value)
    assert all(torch.equal(*pair) for pair in zip(outputs(pipe), plain, strict=True))


@pytest.mark.parametrize("said", ["[]", "{", '{"unet.r": "x", "unet.lora_alpha": {}}', '{"unet.use_dora": true}'])
def test_odd_metadata_is_refused_in_one_line(pipe, tmp_path, said):
    save_file(tensors(matrices(pipe)), tmp_path / "x.safetensors", metadata={"lora_adapter_metadata": said})
    with pytest.raises(ModelError, match=r"x\.safetensors") as caught:
        pipe.load_lora(tmp_path / "x.safetensors")
    assert "\n" not in str(caught.value)
