"""Elements of an SVG drawing as text."""

from __future__ import annotations

from markupsafe import Markup, escape


def number(value: float, digits: int = 2) -> str:
    """``value`` with at most ``digits`` decimals and no trailing zeros.

    >>> number(12.0), number(-0.001), number(3.14159)
    ('12', '0', '3.14')
    """
    text = f"{value:.{digits}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def element(name: str, *children: str, **attributes: str | float | None) -> Markup:
    """One element; an underscore in a name becomes a hyphen, ``class_`` is ``class``, None is left out.

    >>> element("line", x1=1.50, class_="axis")
    Markup('<line x1="1.5" class="axis"/>')
    """
    parts = [f"<{name}"]
    for key, value in attributes.items():
        if value is None:
            continue
        shown = value if isinstance(value, str) else number(value)
        parts.append(f' {key.rstrip("_").replace("_", "-")}="{escape(shown)}"')
    if not children:
        return Markup("".join(parts) + "/>")
    inside = "".join(str(escape(child)) for child in children)
    return Markup(f"{''.join(parts)}>{inside}</{name}>")


def group(*children: str, **attributes: str | float | None) -> Markup:
    """A ``g`` around what is drawn; nothing for nothing."""
    return element("g", *children, **attributes) if children else Markup()


def drawing(width: float, height: float, label: str, *children: str, class_: str) -> Markup:
    """A drawing of its own with ``label`` as the words for who does not see it."""
    return element(
        "svg",
        *children,
        viewBox=f"0 0 {number(width)} {number(height)}",
        class_=class_,
        role="img",
        aria_label=label,
    )
