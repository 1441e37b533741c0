"""The app's look: one accent colour (that of the samples in every figure), IBM Plex from gradio's own files."""

import gradio as gr
from gradio.themes.utils import fonts

ACCENT = gr.themes.Color("#e8f7f1", "#cbeee0", "#9bdec4", "#63caa6", "#2bb389", "#009e73", "#007d5b", "#006a4d",
                         "#06533e", "#074433", "#03271d", name="accent")
NEUTRAL = gr.themes.Color("#f7f8f7", "#eff1f0", "#dfe3e1", "#c5ccc9", "#94a09b", "#6a7671", "#4f5a56", "#3c4643",
                          "#262e2b", "#1a201e", "#111614", name="neutral")


def studio_theme() -> gr.themes.Base:
    """The theme; what it cannot say is in ``assets/style.css``."""
    # Regular and bold only: gradio's semi-bold files lack most letters.
    return gr.themes.Base(
        primary_hue=ACCENT, secondary_hue=ACCENT, neutral_hue=NEUTRAL,
        spacing_size=gr.themes.sizes.spacing_md, radius_size=gr.themes.sizes.radius_md,
        text_size=gr.themes.sizes.text_md,
        font=(fonts.LocalFont("IBM Plex Sans", weights=(400, 700)), "ui-sans-serif", "system-ui", "sans-serif"),
        font_mono=(fonts.LocalFont("IBM Plex Mono", weights=(400, 700)), "ui-monospace", "Consolas", "monospace"),
    ).set(
        body_background_fill="*neutral_50", body_background_fill_dark="*neutral_950",
        body_text_color="*neutral_900", body_text_color_dark="*neutral_100",
        body_text_color_subdued="*neutral_600", body_text_color_subdued_dark="*neutral_300",
        background_fill_primary="white", background_fill_primary_dark="*neutral_900",
        background_fill_secondary="*neutral_50", background_fill_secondary_dark="*neutral_800",
        border_color_primary="*neutral_200", border_color_primary_dark="#313a37",
        block_background_fill="white", block_background_fill_dark="*neutral_900",
        block_border_width="1px", block_border_width_dark="1px",
        block_border_color="*neutral_200", block_border_color_dark="#313a37",
        block_shadow="none", block_shadow_dark="none", block_radius="10px", block_padding="14px",
        block_label_background_fill="transparent", block_label_background_fill_dark="transparent",
        block_label_border_width="0px", block_label_border_width_dark="0px",
        block_label_text_color="*neutral_600", block_label_text_color_dark="*neutral_300",
        block_title_text_color="*neutral_800", block_title_text_color_dark="*neutral_200",
        block_title_text_weight="600", block_title_text_size="13px",
        block_info_text_color="*neutral_600", block_info_text_color_dark="*neutral_300",
        input_background_fill="white", input_background_fill_dark="*neutral_800",
        input_border_color="*neutral_300", input_border_color_dark="#3c4643",
        input_border_color_focus="*primary_600", input_border_color_focus_dark="*primary_400",
        input_border_width="1px", input_radius="7px",
        input_placeholder_color="*neutral_500", input_placeholder_color_dark="*neutral_400",
        button_primary_background_fill="*primary_600", button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_hover_dark="*primary_700",
        button_primary_text_color="white", button_primary_text_color_dark="white",
        button_secondary_background_fill="white", button_secondary_background_fill_dark="*neutral_800",
        button_secondary_background_fill_hover="*neutral_100",
        button_secondary_background_fill_hover_dark="#323b38",
        button_secondary_border_color="*neutral_300", button_secondary_border_color_dark="#46514d",
        button_secondary_border_color_hover="*neutral_400", button_secondary_border_color_hover_dark="#5b6863",
        button_border_width="1px", button_border_width_dark="1px",
        button_large_radius="8px", button_medium_radius="8px", button_small_radius="6px",
        color_accent_soft="*primary_50", color_accent_soft_dark="*primary_950",
        table_even_background_fill="white", table_even_background_fill_dark="*neutral_900",
        table_odd_background_fill="*neutral_50", table_odd_background_fill_dark="#1d2422",
        table_border_color="*neutral_200", table_border_color_dark="#313a37", table_radius="8px",
        link_text_color="*primary_700", link_text_color_dark="*primary_300",
        layout_gap="14px", form_gap_width="0px",
    )
