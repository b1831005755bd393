"""How the page looks: one set of colours by day and one by night, the system's own fonts."""

import gradio as gr

from riff.playground.script import SCRIPT
from riff.playground.stream_script import STREAM

HEAD = f'<meta name="viewport" content="width=device-width, initial-scale=1"><script>{SCRIPT}{STREAM}</script>'
# Nothing is loaded from elsewhere, whatever a library's page asks for.
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; connect-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'self'; "
    "form-action 'self'; object-src 'none'"
)


def theme() -> gr.themes.Base:
    """riff's colours in Gradio's names; the second of each pair is for the night."""
    colours = {
        "body_background_fill": ("#f6f4ef", "#121019"),
        "body_text_color": ("#1d1b26", "#efecf6"),
        "body_text_color_subdued": ("#66626f", "#a59fb5"),
        "background_fill_primary": ("#ffffff", "#1c1926"),
        "background_fill_secondary": ("#f6f4ef", "#16131f"),
        "block_background_fill": ("#ffffff", "#1c1926"),
        "block_label_background_fill": ("#ffffff", "#1c1926"),
        "block_label_text_color": ("#66626f", "#a59fb5"),
        "block_title_text_color": ("#3f3b49", "#cbc6d8"),
        "border_color_primary": ("#e4e0d8", "#2d293a"),
        "block_border_color": ("#e4e0d8", "#2d293a"),
        "input_background_fill": ("#fbfaf7", "#16131f"),
        "input_border_color": ("#ddd8ce", "#383347"),
        "color_accent": ("#6c3fd1", "#b69cff"),
        "slider_color": ("#6c3fd1", "#b69cff"),
        "checkbox_background_color_selected": ("#6c3fd1", "#8c6be8"),
        "button_primary_background_fill": ("#6c3fd1", "#b69cff"),
        "button_primary_background_fill_hover": ("#5a31b8", "#c7b3ff"),
        "button_primary_text_color": ("#ffffff", "#14101f"),
        "button_secondary_background_fill": ("#ffffff", "#231f30"),
        "button_secondary_background_fill_hover": ("#efeaf9", "#2d2740"),
        "button_secondary_border_color": ("#ddd8ce", "#383347"),
        "button_secondary_text_color": ("#1d1b26", "#efecf6"),
    }
    base = gr.themes.Base(
        primary_hue="violet",
        neutral_hue="zinc",
        radius_size="lg",
        font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"],
        font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "monospace"],
    )
    pairs = {name: day for name, (day, _) in colours.items()}
    pairs |= {f"{name}_dark": night for name, (_, night) in colours.items()}
    pairs.pop("color_accent_dark")
    return base.set(**pairs, block_border_width="1px", block_shadow="none")
