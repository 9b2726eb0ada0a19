"""A few SVG shapes, in the page's colours, for drawings that no plot is."""

from html import escape

ARROW = (
    '<defs><marker id="{name}-arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" '
    'orient="auto-start-reverse"><path d="M 0 0 L 8 4 L 0 8 z" fill="currentColor"/></marker></defs>'
)


def document(name: str, label: str, width: float, height: float, shapes: list[str]) -> str:
    """Return a drawing of that size; `name` keeps its identifiers apart from those of other drawings."""
    box = f"0 0 {width:g} {height:g}"
    return "\n".join(
        [
            f'<svg role="img" aria-label="{escape(label)}" viewBox="{box}" font-size="11">',
            ARROW.format(name=name),
            *shapes,
            "</svg>",
        ]
    )


def text(x: float, y: float, content: str, *, anchor: str = "middle", size: float = 11, turned: bool = False) -> str:
    """Return text whose middle line is at y; `turned` runs upwards."""
    turn = f' transform="rotate(-90 {x:g} {y:g})"' if turned else ""
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" text-anchor="{anchor}" dominant-baseline="central" '
        f'fill="currentColor"{turn}>{escape(content)}</text>'
    )


def box(x: float, y: float, width: float, height: float, colour: str) -> str:
    """Return a rectangle with its upper left corner at x, y."""
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="3" fill="{colour}" fill-opacity="0.18" '
        f'stroke="{colour}"/>'
    )


def arrow(name: str, path: str, *, dashed: bool = False) -> str:
    """Return a line along a path with a head at its end; `name` is that of the document."""
    dashes = ' stroke-dasharray="4 3"' if dashed else ""
    return f'<path d="{path}" fill="none" stroke="currentColor"{dashes} marker-end="url(#{name}-arrow)"/>'


def circle(x: float, y: float, radius: float) -> str:
    """Return an empty circle."""
    return f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="none" stroke="currentColor"/>'
