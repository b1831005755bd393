"""Pages that the site builds from riff itself: the command reference, and the words that riff-mini knows."""

import argparse
import json
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent


def commands_page() -> str:
    """Every verb with its help, from the parser that runs it."""
    from riff.apps.cli import build_parser

    parser = build_parser()
    verbs = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    lines = ["# Command line", "", "Made from the parser. `riff VERB --help` prints the same.", ""]
    lines += ["```text", parser.format_help().rstrip(), "```", ""]
    for name, verb in verbs.choices.items():
        lines += [f"## riff {name}", "", "```text", verb.format_help().rstrip(), "```", ""]
    return "\n".join(lines)


def words_page() -> str:
    """Genres, instruments, keys and all words of riff-mini, from its tokenizer and its tagger."""
    from safetensors import safe_open

    from riff.music.theory import KEYS

    models = ROOT / "riff" / "models"
    with safe_open(models / "tagger.safetensors", "pt") as file:
        labels = {name: json.loads(text) for name, text in file.metadata().items() if name in ("genres", "instruments")}
    vocabulary = json.loads((models / "riff-mini" / "tokenizer" / "vocab.json").read_text(encoding="utf-8"))
    words = sorted(
        word.removesuffix("</w>").replace("_", " ")
        for word in vocabulary
        if word.endswith("</w>") and word[0].isalpha() and word[0].isascii() and len(word.removesuffix("</w>")) > 1
    )
    sections = {"Genres": labels["genres"], "Instruments": labels["instruments"], "Keys": KEYS, "All words": words}
    lines = [
        "# Words, genres, keys",
        "",
        "What riff-mini has learned. Other words are ignored, and one line says which.",
        "",
    ]
    for title, entries in sections.items():
        lines += [
            f"## {title}",
            "",
            f"{len(entries)}: " + ", ".join(str(entry).replace("_", " ") for entry in entries) + ".",
            "",
        ]
    return "\n".join(lines)


def card_page(path: Path) -> str:
    """A model card without its YAML header."""
    text = path.read_text(encoding="utf-8")
    return text.split("---", 2)[2].lstrip() if text.startswith("---") else text


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to the site."""
    for name, page in (("commands.md", commands_page), ("words.md", words_page)):
        files.append(File.generated(config, name, content=page()))
    models = ROOT / "riff" / "models"
    for name, path in {"riff-mini.md": models / "riff-mini" / "README.md", "tagger.md": models / "tagger.md",
                       "beats.md": models / "beats.md", "changelog.md": ROOT / "CHANGELOG.md"}.items():  # fmt: skip
        files.append(File.generated(config, name, content=card_page(path)))
    return files
