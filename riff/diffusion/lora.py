"""LoRA files on top of a model: each is applied wholly, or refused in one line.

All layouts are brought to one: ``{module: (down, up)}`` for UNet and text encoder, the product of the two matrices
being
what is added to the module's weight (Hu et al., 2021).
"""

import dataclasses
import json
import math
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from riff.diffusion.components import quiet_libraries, reading
from riff.prompt.vocabulary import EMBEDS_NAME, add_token, read_words
from riff.utils.errors import ModelError, SystemProblem
from riff.utils.files import check_safetensors

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

LORA_NAME = "pytorch_lora_weights.safetensors"
# Parts of a key that belong to other kinds of adapters.
_OTHER_KINDS = {
    "dora_scale": "DoRA", "lora_magnitude_vector": "DoRA", "hada_": "LoHa", "lokr_": "LoKr", "oft_": "OFT",
    "lora_mid": "LoCon with Tucker factors", "on_input": "IA3", ".diff": "full differences",
}  # fmt: skip
_PREFIXES = {
    "lora_unet_": "unet", "unet.": "unet", "": "unet",
    "lora_te_": "text_encoder", "lora_te1_": "text_encoder", "text_encoder.": "text_encoder",
}  # fmt: skip
_MATRIX = re.compile(r"(.+)\.(?:lora|lora_linear_layer)[._](down|up|A|B)(?:\.default)?\.weight")
_SIDES = {"down": "down", "A": "down", "up": "up", "B": "up"}
# diffusers' first layout names attention's projections otherwise.
_FIRST_LAYOUT = (
    (re.compile(r"\.processor\."), "."),
    (re.compile(r"\.to_out_lora\."), ".to_out.0.lora."),
    (re.compile(r"\.to_([qkv])_lora\."), r".to_\1.lora."),
)
_TEXT_NAMES = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out.0": "out_proj"}


def find_lora(path: Path) -> tuple[Path | None, Path | None]:
    """The files of a LoRA: its weights, and the learned words beside it.

    Args:
        path: a file, or a folder that ``riff train`` or diffusers wrote.

    Raises:
        ModelError: there is neither.
    """
    if path.is_dir():
        weights: Path | None = path / LORA_NAME
        words: Path | None = path / EMBEDS_NAME
    elif path.name == EMBEDS_NAME:
        weights, words = None, path
    else:
        weights, words = path, path.with_name(EMBEDS_NAME)
    found = tuple(each if each is not None and each.is_file() else None for each in (weights, words))
    if found == (None, None) or (found[0] is None and weights is not None and not path.is_dir()):
        raise ModelError(
            f"{path} is no LoRA file; give the path of a .safetensors file or of a folder that riff train wrote"
        )
    return found[0], found[1]


def check_lora(path: Path) -> None:
    """Refuse what can be no LoRA with any model.

    Raises:
        ModelError: no such file, or a damaged one.
        SystemProblem: peft is not installed.
    """
    weights, words = find_lora(path)
    for file in (weights, words):
        if file is not None and file.suffix.lower() != ".safetensors":
            raise ModelError(f"{file} is no LoRA file; give the path of a .safetensors file")
        if file is not None:
            check_safetensors(file)
    if weights is None:
        return
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise SystemProblem("a LoRA needs peft; install it: python -m pip install 'riff-music[lora]'") from error


def load_lora(components: "StableDiffusionPipeline", path: Path, weight: float = 1.0) -> str:
    """Load a LoRA into UNet and text encoder, on top of those that are there, and the learned words beside it.

    Args:
        components: the model.
        path: a ``.safetensors`` file in diffusers', peft's or kohya's layout, or a folder that ``riff train`` wrote.
        weight: how much of it, in UNet and text encoder; at 0 the model is as it was.

    Returns:
        The adapter's name; of a folder that only teaches words, a name that no adapter has.

    Raises:
        ModelError: no such file, damaged, not finite, of another kind than LoRA, or made for another model.
        SystemProblem: peft is not installed.
    """
    check_lora(path)
    weights, words = find_lora(path)
    name = _free_name(components, path)
    learned = {} if words is None else read_words(words)
    if weights is not None:
        with quiet_libraries(), reading(weights, "use a LoRA made for this model"):
            pairs = read_lora(weights, components)
            for component, found in pairs.items():
                _add_adapter(getattr(components, component), found, name, weight)
    for word, vector in learned.items():
        add_token(word, vector, components.tokenizer, components.text_encoder)
    return name


def _free_name(components: "StableDiffusionPipeline", path: Path) -> str:
    taken = {name for names in components.get_list_adapters().values() for name in names}
    name = re.sub(r"\W+", "_", path.stem) or "lora"
    while name in taken:
        name += "_"
    return name


@dataclasses.dataclass
class _Pair:
    """What a file says of one module."""

    down: Tensor | None = None  # (r, inputs, ...)
    up: Tensor | None = None  # (outputs, r, ...)
    alpha: float | None = None


def read_lora(path: Path, components: "StableDiffusionPipeline") -> dict[str, dict[str, tuple[Tensor, Tensor]]]:
    """The matrices of a file by component and module, the scale of each multiplied into ``up``.

    Raises:
        ModelError: the file holds anything that could not be applied.
    """
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        metadata = json.loads((file.metadata() or {}).get("lora_adapter_metadata", "{}"))
    if not tensors or not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise ModelError(f"{path} is empty or holds NaN or infinite weights; restore it")
    kinds = {kind for key in tensors for part, kind in _OTHER_KINDS.items() if part in key}
    if any(name.endswith("use_dora") and used for name, used in metadata.items()):
        kinds.add("DoRA")
    if kinds:
        raise ModelError(f"{path} is a {' and '.join(sorted(kinds))} file, which riff does not apply; use a plain LoRA")
    modules = {name: _spellings(getattr(components, name)) for name in ("unet", "text_encoder")}
    pairs: dict[str, dict[str, _Pair]] = {}
    foreign = []
    for key, tensor in tensors.items():
        place, part = _place_of(key, modules)
        if place is None:
            foreign.append(key)
            continue
        pair = pairs.setdefault(place[0], {}).setdefault(place[1], _Pair())
        setattr(pair, part, float(tensor) if part == "alpha" and tensor.numel() == 1 else tensor)
    if foreign:
        raise ModelError(
            f"{path}: {len(foreign)} of its {len(tensors)} tensors have no place in this model, e.g. {foreign[0][:80]}; "  # noqa: E501
            "use a LoRA made for it"
        )
    return {
        component: {
            module: _scaled(
                pair, getattr(components, component), module, _stated_scale(metadata, component, module), path
            )
            for module, pair in found.items()
        }
        for component, found in pairs.items()
    }


def _place_of(key: str, modules: dict[str, dict[str, str]]) -> tuple[tuple[str, str] | None, str]:
    """The component and the module that a key belongs to, and "down", "up" or "alpha"."""
    for pattern, replacement in _FIRST_LAYOUT:
        key = pattern.sub(replacement, key)
    if found := _MATRIX.fullmatch(key):
        name, part = found[1], _SIDES[found[2]]
    elif key.endswith(".alpha"):
        name, part = key.removesuffix(".alpha"), "alpha"
    else:
        return None, ""
    for prefix, component in _PREFIXES.items():
        if name.startswith(prefix) and (module := modules[component].get(name.removeprefix(prefix))):
            return (component, module), part
    return None, part


def _spellings(model: torch.nn.Module) -> dict[str, str]:
    """Every way in which LoRA files spell the names of a model's modules, to the names."""
    spellings: dict[str, str] = {}
    for full, module in model.named_modules():
        if not isinstance(module, torch.nn.Linear | torch.nn.Conv2d) or ".lora_" in full:
            continue
        name = full.removesuffix(".base_layer")
        plain = name.removeprefix("text_model.")
        first = plain
        for theirs, ours in _TEXT_NAMES.items():
            first = re.sub(rf"\.{ours}$", f".{theirs}", first)
        for spelling in (plain, first, f"text_model.{plain}", f"text_model.{first}"):
            spellings[spelling] = spellings[spelling.replace(".", "_")] = name
    return spellings


def _stated_scale(metadata: dict[str, Any], component: str, module: str) -> float | None:
    """The scale that diffusers' metadata gives a module; None without metadata."""
    own = {name.removeprefix(f"{component}."): value for name, value in metadata.items() if name.startswith(component)}
    if own.get("r") is None or own.get("lora_alpha") is None:
        return None
    rank, alpha = (
        next((value for name, value in own.get(patterns, {}).items() if module.endswith(name.lstrip("^"))), own[usual])
        for patterns, usual in (("rank_pattern", "r"), ("alpha_pattern", "lora_alpha"))
    )
    return float(alpha) / (math.sqrt(rank) if own.get("use_rslora") else float(rank))


def _scaled(
    pair: _Pair, model: torch.nn.Module, module: str, stated: float | None, path: Path
) -> tuple[Tensor, Tensor]:
    """The two matrices, checked against the module's shape, ``up`` times alpha over the rank."""
    layer = model.get_submodule(module)
    shape: torch.Size = getattr(layer, "base_layer", layer).weight.shape  # type: ignore[union-attr,assignment]
    if pair.down is None or pair.up is None:
        raise ModelError(f"{path} has only one of the two matrices of {module}; download it again")
    down, up = pair.down.float(), pair.up.float()
    if len(shape) == 4:  # a convolution of one pixel may be written as a linear layer, and the other way round
        down, up = (each[..., None, None] if each.dim() == 2 else each for each in (down, up))
    elif down.dim() == 4:
        down, up = down.flatten(1), up.flatten(1)
    rank = down.shape[0]
    kernel = shape[2:]
    if not rank or down.shape != (rank, *shape[1:]) or up.shape != (shape[0], rank, *[1] * len(kernel)):
        raise ModelError(
            f"{path}: {module} has matrices of {tuple(pair.down.shape)} and {tuple(pair.up.shape)}, this model's weight "  # noqa: E501
            f"there is {tuple(shape)}; use a LoRA made for it"
        )
    scale = pair.alpha / rank if pair.alpha is not None else 1.0 if stated is None else stated
    return down, up if scale == 1.0 else up * scale


def _add_adapter(model: Any, pairs: dict[str, tuple[Tensor, Tensor]], name: str, weight: float) -> None:
    """Inject an adapter and make all adapters of the model active, each at its own weight."""
    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
    from peft.tuners.lora import LoraLayer

    # One rank for all modules: shorter matrices are filled up with zeros, which changes nothing.
    rank = max(len(down) for down, _ in pairs.values())
    state = {}
    for module, (down, up) in pairs.items():
        missing = rank - len(down)
        state[f"{module}.lora_A.weight"] = torch.cat([down, down.new_zeros(missing, *down.shape[1:])])
        state[f"{module}.lora_B.weight"] = torch.cat([up, up.new_zeros(len(up), missing, *up.shape[2:])], dim=1)
    # As a pattern, since a name in a list would stand for all names that end with it.
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules="|".join(map(re.escape, pairs)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several LoRAs are meant
        inject_adapter_in_model(config, model, adapter_name=name)
    unused = set_peft_model_state_dict(model, state, name).unexpected_keys
    assert not unused, unused
    model._hf_peft_config_loaded = True  # what diffusers and transformers look at
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            layer.set_adapter(list(layer.lora_A))
            layer.set_scale(name, weight)
    model.eval()
