"""How the page looks, and what its scripts add for the keyboard and for screen readers."""

import gradio as gr

MAX_HEIGHT = 640  # pixels of the pictures, so that noisy, denoised and controls are seen at once
# Gradio's grey on white has a contrast of 2.6; WCAG 2 asks for 4.5, which this step of its palette has.
READABLE_GREY = "*neutral_600"
FONTS = ["system-ui", "sans-serif"]  # the reader's own: others would be fetched
MONO_FONTS = ["ui-monospace", "monospace"]

CSS = f"""
.bsd-alert {{ border: 2px solid #b91c1c; border-radius: 6px; padding: 10px 12px; color: var(--body-text-color);
  background: color-mix(in srgb, #b91c1c 12%, transparent); overflow-wrap: anywhere; }}
.bsd-facts {{ display: grid; grid-template-columns: max-content 1fr; gap: 4px 14px; margin: 0; font-size: 0.95em; }}
.bsd-facts dt {{ color: var(--body-text-color-subdued); }}
.bsd-facts dd {{ margin: 0; overflow-wrap: anywhere; }}
.bsd-scale {{ height: 16px; border: 1px solid var(--border-color-primary); border-radius: 3px; }}
.bsd-ticks {{ display: flex; justify-content: space-between; font-variant-numeric: tabular-nums; }}
.bsd-legend p {{ margin: 4px 0 0; color: var(--body-text-color-subdued); }}
.bsd-noise p {{ margin: 0 0 4px; overflow-wrap: anywhere; }}
.bsd-noise svg {{ width: 100%; max-width: 640px; height: auto; }}
.bsd-noise text {{ font-size: 11px; fill: currentColor; font-variant-numeric: tabular-nums; }}
#about, #legend, #message, #facts, #noise {{ --block-padding: 0; }}
#sigma :is(input, textarea):disabled {{ background: var(--border-color-primary); cursor: not-allowed; }}
#uncertainty .image-frame, #uncertainty button:has(img) {{ width: 100%; }}
#uncertainty img {{ width: 100%; max-height: {MAX_HEIGHT}px; object-fit: contain; }}
#slider [role=slider]:focus-visible {{ outline: 3px solid var(--body-text-color); }}
"""

# Gradio's divider hears only the mouse, and its pictures have no descriptions. The arrow keys drag it by events such as
# a mouse makes.
SCRIPT = """
() => {
  const STEP = 0.05;
  const where = (handle) => {
    const line = handle.querySelector(".inner").getBoundingClientRect();
    const picture = handle.parentElement.getBoundingClientRect();
    return { x: line.left + line.width / 2, y: line.top + line.height / 2, picture };
  };
  const tell = (handle) => {
    const { x, picture } = where(handle);
    handle.setAttribute("aria-valuenow", Math.round((100 * (x - picture.left)) / picture.width));
  };
  const move = (handle, target) => {
    const { x, y, picture } = where(handle);
    const to = Math.min(Math.max(target(x, picture), picture.left), picture.right);
    const send = (receiver, type, clientX) =>
      receiver.dispatchEvent(new MouseEvent(type, { clientX, clientY: y, view: window, bubbles: true }));
    send(handle.querySelector(".inner"), "mousedown", x);
    send(window, "mousemove", to);
    send(window, "mouseup", to);
    requestAnimationFrame(() => tell(handle));
  };
  const KEYS = {
    ArrowLeft: (x, picture) => x - STEP * picture.width,
    ArrowRight: (x, picture) => x + STEP * picture.width,
    Home: (x, picture) => picture.left,
    End: (x, picture) => picture.right,
  };
  const prepare = () => {
    const handle = document.querySelector('#slider [data-testid="slider"]');
    if (handle && handle.tabIndex !== 0) {
      handle.tabIndex = 0;
      const about = { role: "slider", "aria-label": "Divider between noisy (left) and denoised (right)",
        "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": 50 };
      Object.entries(about).forEach(([name, value]) => handle.setAttribute(name, value));
      handle.addEventListener("keydown", (event) => {
        if (event.key in KEYS) {
          event.preventDefault();
          move(handle, KEYS[event.key]);
        }
      });
      handle.addEventListener("focus", () => tell(handle));
    }
    document.querySelectorAll("#slider .content img").forEach((image, index) => {
      image.alt = ["Noisy image", "Denoised image"][index] || "";
    });
    document.querySelectorAll("#uncertainty img").forEach((image) => {
      image.alt = "Map of the uncertainty; the scale below says what its colours mean";
    });
  };
  new MutationObserver(prepare).observe(document.body, { childList: true, subtree: true });
}
"""


def theme() -> gr.themes.Base:
    """Make the theme."""
    base = gr.themes.Default(primary_hue="indigo", font=FONTS, font_mono=MONO_FONTS)
    return base.set(body_text_color_subdued=READABLE_GREY, block_info_text_color=READABLE_GREY)
