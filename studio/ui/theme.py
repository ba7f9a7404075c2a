"""How the studio looks: every colour once, for light and for dark, and the Gradio theme made from them.

In: nothing. Out: `TOKENS` (name -> colour, by mode), `tokens_css()` for the page, `theme()` for Gradio. Colours reach
Gradio as CSS variables, so the two modes differ in the variables alone. One accent; the greens, ambers and reds speak
of state and of nothing else. Sizes, spacing and everything that is not a colour is in assets/studio.css.
"""

from __future__ import annotations

from typing import Any

TOKENS: dict[str, dict[str, str]] = {
    "light": {
        "page": "#f6f6f8",
        "surface": "#ffffff",
        "sunken": "#f0f0f3",
        "hover": "#ececf0",
        "border": "#e2e2e8",
        "edge": "#cdcfd8",  # of a button
        "control": "#888b97",  # the edge of what can be typed into
        "text": "#1a1b1f",
        "text-soft": "#4b4e58",
        "text-faint": "#666a75",
        "accent": "#2457c5",
        "accent-hover": "#1c479f",
        "accent-soft": "#e8eefb",
        "on-accent": "#ffffff",
        "ok": "#17703f",
        "ok-soft": "#e4f4ea",
        "warn": "#855300",
        "warn-soft": "#fbf0d9",
        "bad": "#b42525",
        "bad-soft": "#fbe9e8",
        "curve-a": "#2457c5",
        "curve-b": "#b4540a",
        "grid": "#e9e9ee",
        "map-1": "#2457c5",
        "map-2": "#b4540a",
        "map-3": "#17703f",
        "map-4": "#8a3ffc",
        "map-5": "#b42567",
        "map-6": "#0b7285",
        "map-7": "#7a5c00",
        "map-8": "#5b616e",
    },
    "dark": {
        "page": "#0e0f11",
        "surface": "#16171a",
        "sunken": "#1c1d21",
        "hover": "#24262b",
        "border": "#2a2c32",
        "edge": "#3b3e46",
        "control": "#6b6f7b",
        "text": "#ececf0",
        "text-soft": "#b2b5bf",
        "text-faint": "#9093a0",
        "accent": "#86aef8",
        "accent-hover": "#a5c3fa",
        "accent-soft": "#1d2a45",
        "on-accent": "#0d1a33",
        "ok": "#56c98b",
        "ok-soft": "#15301f",
        "warn": "#e3b04b",
        "warn-soft": "#33270f",
        "bad": "#f58380",
        "bad-soft": "#3a1b1c",
        "curve-a": "#86aef8",
        "curve-b": "#f0a35e",
        "grid": "#23252a",
        "map-1": "#86aef8",
        "map-2": "#f0a35e",
        "map-3": "#56c98b",
        "map-4": "#b794f6",
        "map-5": "#f58ab5",
        "map-6": "#5bc8d9",
        "map-7": "#d9bf4a",
        "map-8": "#a3a8b4",
    },
}

# Pairs that are read together: (foreground, background, least contrast by WCAG 2.2 AA).
READ_TOGETHER: tuple[tuple[str, str, float], ...] = (
    *((text, ground, 4.5) for text in ("text", "text-soft", "text-faint") for ground in ("page", "surface", "sunken")),
    *((text, "hover", 4.5) for text in ("text", "text-soft")),
    *((tone, ground, 4.5) for tone in ("accent", "ok", "warn", "bad") for ground in ("page", "surface", "sunken")),
    *((tone, f"{tone}-soft", 4.5) for tone in ("accent", "ok", "warn", "bad")),
    ("text", "accent-soft", 4.5),
    ("on-accent", "accent", 4.5),
    ("on-accent", "accent-hover", 4.5),
    ("control", "surface", 3.0),
    ("control", "page", 3.0),
    ("curve-a", "surface", 3.0),
    ("curve-b", "surface", 3.0),
    *((f"map-{number}", "surface", 3.0) for number in range(1, 9)),
)


def tokens_css() -> str:
    """The colours as CSS variables `--st-<name>`; `dark` on the body or the root chooses the second set."""
    light, dark = (
        "".join(f"--st-{name}:{value};" for name, value in TOKENS[mode].items()) for mode in ("light", "dark")
    )
    return f":root{{color-scheme:light;{light}}}\n:root.dark,body.dark{{color-scheme:dark;{dark}}}\n"


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two #rrggbb colours, 1 to 21 (WCAG 2.2, "contrast ratio")."""
    bright, dim = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def _luminance(colour: str) -> float:
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _v(name: str) -> str:
    return f"var(--st-{name})"


def _variables() -> dict[str, str]:
    """Gradio's theme variables in our colours and sizes."""
    clear, none = "transparent", "none"
    return {
        "body_background_fill": _v("page"),
        "body_text_color": _v("text"),
        "body_text_color_subdued": _v("text-faint"),
        "body_text_size": "14px",
        "color_accent": _v("accent"),
        "color_accent_soft": _v("accent-soft"),
        "background_fill_primary": _v("surface"),
        "background_fill_secondary": _v("sunken"),
        "border_color_primary": _v("border"),
        "border_color_accent": _v("accent"),
        "border_color_accent_subdued": _v("border"),
        "link_text_color": _v("accent"),
        "link_text_color_hover": _v("accent-hover"),
        "link_text_color_active": _v("accent"),
        "link_text_color_visited": _v("accent"),
        "shadow_drop": none,
        "shadow_drop_lg": "0 8px 24px rgb(0 0 0 / 14%)",
        "shadow_inset": none,
        "shadow_spread": "0",
        "block_background_fill": clear,
        "block_border_width": "0px",
        "block_border_color": _v("border"),
        "block_info_text_color": _v("text-faint"),
        "block_info_text_size": "12.5px",
        "block_label_background_fill": clear,
        "block_label_border_width": "0px",
        "block_label_shadow": none,
        "block_label_text_color": _v("text-soft"),
        "block_label_text_size": "13px",
        "block_label_text_weight": "500",
        "block_label_padding": "0",
        "block_padding": "0",
        "block_radius": "8px",
        "block_shadow": none,
        "block_title_text_color": _v("text-soft"),
        "block_title_text_size": "13px",
        "block_title_text_weight": "500",
        "container_radius": "8px",
        "form_gap_width": "12px",
        "layout_gap": "16px",
        "panel_background_fill": clear,
        "panel_border_width": "0px",
        "section_header_text_size": "13px",
        "section_header_text_weight": "600",
        "accordion_text_color": _v("text"),
        "table_text_color": _v("text"),
        "table_border_color": _v("border"),
        "table_even_background_fill": _v("surface"),
        "table_odd_background_fill": _v("surface"),
        "table_radius": "8px",
        "table_row_focus": _v("accent-soft"),
        "code_background_fill": _v("sunken"),
        "chatbot_text_size": "14px",
        "checkbox_background_color": _v("surface"),
        "checkbox_background_color_selected": _v("accent"),
        "checkbox_border_color": _v("control"),
        "checkbox_border_color_hover": _v("control"),
        "checkbox_border_color_focus": _v("accent"),
        "checkbox_border_color_selected": _v("accent"),
        "checkbox_border_width": "1px",
        "checkbox_border_radius": "4px",
        "checkbox_label_background_fill": clear,
        "checkbox_label_background_fill_hover": _v("hover"),
        "checkbox_label_background_fill_selected": _v("accent-soft"),
        "checkbox_label_border_color": _v("border"),
        "checkbox_label_border_color_selected": _v("accent"),
        "checkbox_label_border_width": "1px",
        "checkbox_label_padding": "6px 10px",
        "checkbox_label_text_size": "13px",
        "checkbox_label_text_color": _v("text"),
        "checkbox_label_text_color_selected": _v("text"),
        "checkbox_label_gap": "6px",
        "error_background_fill": _v("bad-soft"),
        "error_border_color": _v("bad"),
        "error_text_color": _v("bad"),
        "error_icon_color": _v("bad"),
        "input_background_fill": _v("surface"),
        "input_background_fill_focus": _v("surface"),
        "input_background_fill_hover": _v("surface"),
        "input_border_color": _v("control"),
        "input_border_color_focus": _v("accent"),
        "input_border_color_hover": _v("text-faint"),
        "input_border_width": "1px",
        "input_padding": "7px 10px",
        "input_placeholder_color": _v("text-faint"),
        "input_radius": "6px",
        "input_shadow": none,
        "input_shadow_focus": "0 0 0 2px var(--st-accent-soft)",
        "input_text_size": "14px",
        "loader_color": _v("accent"),
        "prose_text_size": "14px",
        "slider_color": _v("accent"),
        "stat_background_fill": _v("accent"),
        "button_border_width": "1px",
        "button_transition": "background-color .12s ease, border-color .12s ease",
        "button_large_padding": "8px 16px",
        "button_large_radius": "6px",
        "button_large_text_size": "14px",
        "button_large_text_weight": "550",
        "button_medium_padding": "6px 12px",
        "button_medium_radius": "6px",
        "button_medium_text_size": "13px",
        "button_medium_text_weight": "550",
        "button_small_padding": "4px 10px",
        "button_small_radius": "6px",
        "button_small_text_size": "13px",
        "button_small_text_weight": "500",
        **_button("primary", _v("accent"), _v("accent-hover"), _v("on-accent"), _v("accent")),
        **_button("secondary", _v("surface"), _v("hover"), _v("text"), _v("edge")),
        **_button("cancel", _v("surface"), _v("bad-soft"), _v("bad"), _v("bad")),
    }


def _button(kind: str, fill: str, hover: str, text: str, border: str) -> dict[str, str]:
    name = f"button_{kind}"
    return {
        f"{name}_background_fill": fill,
        f"{name}_background_fill_hover": hover,
        f"{name}_border_color": border,
        f"{name}_border_color_hover": border,
        f"{name}_text_color": text,
        f"{name}_text_color_hover": text,
        f"{name}_shadow": "none",
        f"{name}_shadow_hover": "none",
        f"{name}_shadow_active": "none",
    }


def theme() -> Any:
    """The Gradio theme. Both modes get the same variables: the colours behind them differ."""
    from studio.ui.gradio_import import gr

    base = gr.themes.Base(
        primary_hue="blue",
        neutral_hue="zinc",
        spacing_size="sm",
        radius_size="md",
        text_size="md",
        font=[gr.themes.Font("Studio Sans"), gr.themes.Font("system-ui"), gr.themes.Font("sans-serif")],
        font_mono=[gr.themes.Font("Studio Mono"), gr.themes.Font("ui-monospace"), gr.themes.Font("monospace")],
    )
    both: dict[str, str] = {}
    for name, value in _variables().items():
        both[name] = value
        if hasattr(base, f"{name}_dark"):
            both[f"{name}_dark"] = value
    return base.set(**both)
