"""Draw the sample images of the page: four small scenes, rendered from distance functions by sphere tracing.

`python -m tests.support.image_files.draw_page_samples service/web/samples` writes them as JPEG files. The scenes are
this project's own, so no photo has to be licensed. `service/web/samples/SOURCES.md` names the origin of each sample.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float64]
WIDTH, HEIGHT = 320, 240
SAMPLES = 2  # across and down, for each pixel
STEPS, FAR, NEAR = 90, 30.0, 1e-3
SUN = np.array([0.45, 0.8, -0.4]) / np.linalg.norm([0.45, 0.8, -0.4])
QUALITY = 66


@dataclass(frozen=True)
class Scene:
    """Distances of points (n, 3) to each surface, the colour (n, 3) of each surface at a point, and the camera."""

    surfaces: Callable[[Floats], list[Floats]]
    colours: Callable[[Floats, NDArray[np.intp]], Floats]
    eye: tuple[float, float, float]
    target: tuple[float, float, float]
    sky: tuple[tuple[float, float, float], tuple[float, float, float]]
    shine: float = 0.35


def render(scene: Scene) -> Image.Image:
    """Return the scene as an RGB image."""
    rays = _rays(scene)
    eye = np.broadcast_to(np.array(scene.eye), rays.shape)
    distance, hit = _trace(scene, eye, rays)
    points = eye + rays * distance[:, None]
    colour = _sky(scene, rays)
    colour[hit] = _shade(scene, points[hit], rays[hit])
    pixels = colour.reshape(HEIGHT, SAMPLES, WIDTH, SAMPLES, 3).mean(axis=(1, 3))
    return Image.fromarray((255 * pixels.clip(0, 1) ** (1 / 2.2)).round().astype(np.uint8))


def _rays(scene: Scene) -> Floats:
    rows, columns = np.mgrid[0 : HEIGHT * SAMPLES, 0 : WIDTH * SAMPLES]
    across = (columns.ravel() + 0.5) / (HEIGHT * SAMPLES) - WIDTH / HEIGHT / 2
    down = 0.5 - (rows.ravel() + 0.5) / (HEIGHT * SAMPLES)
    forward = _unit(np.array(scene.target) - np.array(scene.eye))
    right = _unit(np.cross((0.0, 1.0, 0.0), forward))
    return _unit(across[:, None] * right + down[:, None] * np.cross(forward, right) + 1.25 * forward)


def _unit(vectors: Floats) -> Floats:
    lengths: Floats = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-9)


def _nearest(scene: Scene, points: Floats) -> Floats:
    return np.min(scene.surfaces(points), axis=0)


def _trace(scene: Scene, origin: Floats, rays: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the distance along each ray to the first surface, and whether there is one."""
    distance, active = np.zeros(len(rays)), np.ones(len(rays), bool)
    for _ in range(STEPS):
        step = _nearest(scene, origin[active] + rays[active] * distance[active, None])
        distance[active] += step
        active[active] = (step > NEAR) & (distance[active] < FAR)
    return distance, distance < FAR


def _shade(scene: Scene, points: Floats, rays: Floats) -> Floats:
    normals = _normals(scene, points)
    surface = np.argmin(scene.surfaces(points), axis=0)
    lit = np.maximum(normals @ SUN, 0) * _shadow(scene, points + normals * 0.02)
    ambient = (0.55 + 0.45 * normals[:, 1]) * _openness(scene, points, normals)
    gloss = np.maximum(_unit(SUN - rays) * normals, 0).sum(axis=1) ** 60 * lit
    colour = scene.colours(points, surface) * (1.15 * lit + 0.55 * ambient)[:, None]
    return colour + scene.shine * gloss[:, None]


def _normals(scene: Scene, points: Floats) -> Floats:
    small = 2e-3
    across = [_nearest(scene, points + small * axis) - _nearest(scene, points - small * axis) for axis in np.eye(3)]
    return _unit(np.stack(across, axis=1))


def _shadow(scene: Scene, points: Floats) -> Floats:
    """Return how much of the sun reaches each point, softly."""
    light, distance = np.ones(len(points)), np.full(len(points), 0.03)
    for _ in range(28):
        step = _nearest(scene, points + SUN * distance[:, None])
        light = np.minimum(light, 9 * step / distance)
        distance += step.clip(0.02, 0.3)
    return light.clip(0, 1)


def _openness(scene: Scene, points: Floats, normals: Floats) -> Floats:
    hidden = np.zeros(len(points))
    for distance in (0.06, 0.15, 0.3):
        hidden += (distance - _nearest(scene, points + normals * distance)) * 0.9
    return (1 - hidden).clip(0.15, 1)


def _sky(scene: Scene, rays: Floats) -> Floats:
    low, high = np.array(scene.sky[0]), np.array(scene.sky[1])
    return low + (high - low) * (0.5 + 0.9 * rays[:, 1:2]).clip(0, 1)


# Shapes


def _sphere(points: Floats, centre: tuple[float, float, float], radius: float) -> Floats:
    return _length(points - centre) - radius


def _ellipsoid(points: Floats, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> Floats:
    scaled = (points - centre) / radii
    outside = _length(scaled)
    return outside * (outside - 1) / np.maximum(_length(scaled / radii), 1e-9)


def _capsule(points: Floats, start: tuple[float, ...], end: tuple[float, ...], radius: float) -> Floats:
    along = np.array(end) - np.array(start)
    part = ((points - start) @ along / (along @ along)).clip(0, 1)
    return _length(points - start - part[:, None] * along) - radius


def _length(vectors: Floats) -> Floats:
    lengths: Floats = np.sqrt((vectors * vectors).sum(axis=1))
    return lengths


def _waves(points: Floats, scale: float) -> Floats:
    """Return a rough pattern of values between about -1 and 1, the same for the same points."""
    x, y, z = (points * scale).T
    return (np.sin(1.7 * x + 2 * np.sin(0.9 * z)) + np.sin(2.3 * z + 1.3 * np.sin(1.1 * x + y))) / 2


def _pick(surface: NDArray[np.intp], colours: list[Floats]) -> Floats:
    return np.choose(surface[:, None], colours)


def _plain(points: Floats, *colour: float) -> Floats:
    return np.tile(np.array(colour), (len(points), 1))


def _mixed(amount: Floats, low: tuple[float, ...], high: tuple[float, ...]) -> Floats:
    return np.array(low) + (np.array(high) - np.array(low)) * amount.clip(0, 1)[:, None]


# Scenes


def _school_bus() -> Scene:
    def surfaces(p: Floats) -> list[Floats]:
        side = p * (1, 1, 1)
        side[:, 2] = np.abs(side[:, 2])
        body = np.minimum(
            _box(p, (0.25, 1.25, 0), (1.75, 0.72, 0.68), 0.14), _box(p, (-1.9, 0.95, 0), (0.5, 0.4, 0.58), 0.1)
        )
        wheels = np.min([_wheel(side, (x, 0.4, 0.62)) for x in (-1.75, 1.1)], axis=0)
        trim = np.minimum(
            _box(p, (-2.42, 0.5, 0), (0.06, 0.12, 0.6), 0.03), _box(side, (0.25, 0.78, 0.69), (1.7, 0.03, 0.02), 0.01)
        )
        return [body, np.minimum(wheels, trim), p[:, 1]]

    def colours(p: Floats, surface: NDArray[np.intp]) -> Floats:
        yellow = _plain(p, 0.86, 0.42, 0.012)
        beside = (
            (np.abs(p[:, 2]) > 0.6) & (np.abs(p[:, 1] - 1.52) < 0.2) & (np.abs((p[:, 0] + 0.1) % 0.46 - 0.23) < 0.18)
        )
        ahead = (p[:, 0] < -1.4) & (np.abs(p[:, 1] - 1.6) < 0.22) & (np.abs(p[:, 2]) < 0.55)
        glass = (beside & (p[:, 0] > -1.3) & (p[:, 0] < 1.9)) | ahead
        lines = (np.abs(p[:, 2]) > 0.6) & (np.abs(p[:, 1] - 1.15) < 0.025)
        grille = (p[:, 0] < -2.35) & (np.abs(p[:, 1] - 0.95) < 0.2) & (np.abs(p[:, 2]) < 0.3)
        lamps = (p[:, 0] < -2.3) & (
            _length(
                (p - (-2.4, 0.95, 0)) * (0, 1, 1)
                - np.stack([0 * p[:, 0], 0 * p[:, 0], 0.43 * np.sign(p[:, 2])], axis=1)
            )
            < 0.09
        )
        body = np.where((glass | lines | grille)[:, None], (0.03, 0.04, 0.05), yellow)
        body = np.where(lamps[:, None], (0.9, 0.9, 0.85), body)
        hub = (_length(p[:, [0, 1]] - np.where(p[:, :1] < -0.4, (-1.75, 0.4), (1.1, 0.4))) < 0.17) & (
            np.abs(p[:, 2]) > 0.6
        )
        black = np.where(hub[:, None], (0.5, 0.5, 0.5), _plain(p, 0.016, 0.016, 0.018))
        road = _mixed(0.5 + 0.3 * _waves(p, 31), (0.11, 0.11, 0.115), (0.16, 0.16, 0.165))
        verge = _mixed(0.5 + 0.5 * _waves(p, 9), (0.07, 0.16, 0.03), (0.13, 0.25, 0.05))
        return _pick(surface, [body, black, np.where((p[:, 2] > 1.8)[:, None], verge, road)])

    return Scene(surfaces, colours, (-3.2, 1.9, -4.3), (-0.15, 0.95, 0), ((0.45, 0.6, 0.8), (0.2, 0.4, 0.75)), 0.3)


def _box(points: Floats, centre: tuple[float, ...], half: tuple[float, ...], rounding: float) -> Floats:
    beyond = np.abs(points - centre) - np.array(half) + rounding
    return _length(np.maximum(beyond, 0)) + np.minimum(beyond.max(axis=1), 0) - rounding


def _wheel(points: Floats, centre: tuple[float, ...]) -> Floats:
    local = points - centre
    flat = np.stack([np.hypot(local[:, 0], local[:, 1]) - 0.4, np.abs(local[:, 2]) - 0.13], axis=1) + 0.05
    return _length(np.maximum(flat, 0)) + np.minimum(flat.max(axis=1), 0) - 0.05


def _turn(about_y: float, about_x: float) -> Floats:
    c, s, d, t = np.cos(about_y), np.sin(about_y), np.cos(about_x), np.sin(about_x)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) @ np.array([[1, 0, 0], [0, d, -t], [0, t, d]])


def _ladybug() -> Scene:
    def surfaces(p: Floats) -> list[Floats]:
        ground = 0.12 * np.sin(0.7 * p[:, 0] + 0.4) + 0.05 * np.cos(1.1 * p[:, 2])
        leaf = (p[:, 1] - ground + 0.03 * np.exp(-((p[:, 2] * 14) ** 2))) * 0.8
        body = np.maximum(_ellipsoid(p, (0, 0.22, 0), (1.0, 0.78, 0.82)), 0.16 - p[:, 1])
        sides = p * (1, 1, 1)
        sides[:, 2] = np.abs(sides[:, 2])
        legs = np.min(
            [
                np.minimum(
                    _capsule(sides, (x, 0.22, 0.6), (x * 1.35, 0.34, 1.0), 0.045),
                    _capsule(sides, (x * 1.35, 0.34, 1.0), (x * 1.6, 0.1, 1.2), 0.035),
                )
                for x in (-0.6, -0.05, 0.5)
            ],
            axis=0,
        )
        head = _ellipsoid(p, (-1.02, 0.3, 0), (0.34, 0.32, 0.42))
        feelers = _capsule(sides, (-1.25, 0.45, 0.14), (-1.55, 0.66, 0.36), 0.025)
        return [body, np.minimum(head, np.minimum(legs, feelers)), leaf]

    def colours(p: Floats, surface: NDArray[np.intp]) -> Floats:
        sides = np.stack([p[:, 0], p[:, 1], np.abs(p[:, 2])], axis=1)
        spots = np.min(
            [
                _length((sides - centre) * (1, 0.9, 1)) - size
                for centre, size in (
                    ((-0.42, 0.86, 0.34), 0.17),
                    ((0.1, 0.9, 0.36), 0.19),
                    ((0.56, 0.72, 0.33), 0.15),
                    ((-0.2, 0.52, 0.72), 0.16),
                    ((0.38, 0.5, 0.7), 0.14),
                    ((-0.66, 0.8, 0.0), 0.2),
                )
            ],
            axis=0,
        )
        line = np.abs(p[:, 2]) - 0.018
        red = _mixed(
            np.minimum(spots, np.where(p[:, 0] > -0.6, line, 1)) * 45, (0.01, 0.008, 0.008), (0.72, 0.03, 0.012)
        )
        white = _length((sides - (-1.12, 0.45, 0.3)) * (1, 1, 1)) - 0.11
        black = _mixed(white * 50, (0.8, 0.8, 0.76), (0.012, 0.012, 0.014))
        veins = np.abs((p[:, 0] - np.abs(p[:, 2]) * 0.7) % 0.7 - 0.35)
        vein = np.minimum(np.abs(p[:, 2]) * 1.2, np.abs(veins - 0.0))
        leaf = _mixed(vein * 9, (0.30, 0.46, 0.10), (0.09, 0.27, 0.03)) * (1 + 0.12 * _waves(p, 6)[:, None])
        return _pick(surface, [red, black, leaf])

    return Scene(surfaces, colours, (-1.9, 2.1, -3.0), (-0.1, 0.35, 0), ((0.2, 0.36, 0.12), (0.42, 0.6, 0.3)), 0.9)


def _mushroom() -> Scene:
    def surfaces(p: Floats) -> list[Floats]:
        cap = np.maximum(_ellipsoid(p, (0, 1.15, 0), (1.15, 0.85, 1.15)), 1.1 - p[:, 1] + 0.1 * _length(p[:, [0, 2]]))
        bulge = 0.27 + 0.16 * np.exp(-3.5 * p[:, 1].clip(0)) + 0.02 * np.sin(9 * np.arctan2(p[:, 2], p[:, 0]))
        stem = np.maximum((_length(p[:, [0, 2]]) - bulge) * 0.8, np.abs(p[:, 1] - 0.6) - 0.75)
        moss = (p[:, 1] + 0.06 - 0.07 * _waves(p, 2.2) - 0.03 * _waves(p, 17)) * 0.6
        return [cap, stem, moss]

    def colours(p: Floats, surface: NDArray[np.intp]) -> Floats:
        top = _mixed((p[:, 1] - 1.2) * 1.6 + 0.15 * _waves(p, 5), (0.42, 0.24, 0.11), (0.27, 0.105, 0.03))
        stem = _mixed(0.5 + 0.4 * np.sin(26 * np.arctan2(p[:, 2], p[:, 0])), (0.62, 0.54, 0.42), (0.78, 0.71, 0.58))
        moss = _mixed(0.5 + 0.5 * _waves(p, 23), (0.04, 0.11, 0.015), (0.16, 0.27, 0.05))
        return _pick(surface, [top, stem, moss])

    return Scene(surfaces, colours, (0.6, 1.5, -4.1), (0, 0.95, 0), ((0.05, 0.09, 0.03), (0.16, 0.25, 0.09)), 0.12)


def _lemons() -> Scene:
    def lemon(p: Floats, centre: tuple[float, float, float], turn: float) -> Floats:
        local = (p - centre) @ _turn(turn, 0.12)
        body = _ellipsoid(local, (0, 0, 0), (0.86, 0.66, 0.66))
        tips = np.minimum(_sphere(local, (0.8, 0, 0), 0.16), _sphere(local, (-0.82, 0, 0), 0.11))
        mixed = (0.5 + 0.5 * (tips - body) / 0.22).clip(0, 1)
        pores = 0.006 * np.sin(34 * local[:, 0]) * np.sin(34 * local[:, 1]) * np.sin(34 * local[:, 2])
        return (tips + (body - tips) * mixed - 0.22 * mixed * (1 - mixed) + pores) * 0.85

    def surfaces(p: Floats) -> list[Floats]:
        return [np.minimum(lemon(p, (-0.62, 0.66, 0.1), 0.5), lemon(p, (0.78, 0.66, 0.5), -0.8)), p[:, 1]]

    def colours(p: Floats, surface: NDArray[np.intp]) -> Floats:
        skin = _mixed(0.55 + 0.25 * _waves(p, 4), (0.86, 0.56, 0.02), (0.94, 0.72, 0.05))
        cloth = _mixed(0.5 + 0.5 * np.sign(np.sin(p[:, 0] * 4.2)) * 0.5, (0.2, 0.27, 0.36), (0.62, 0.65, 0.68))
        return _pick(surface, [skin, cloth])

    return Scene(surfaces, colours, (0.4, 2.1, -3.6), (0, 0.5, 0), ((0.4, 0.44, 0.5), (0.66, 0.7, 0.75)), 0.25)


SCENES = {"school-bus": _school_bus, "ladybug": _ladybug, "mushroom": _mushroom, "lemons": _lemons}


def main() -> None:
    """Write every scene to a folder, the command's only argument."""
    folder = Path(sys.argv[1])
    for name, scene in SCENES.items():
        render(scene()).save(folder / f"{name}.jpg", quality=QUALITY, optimize=True, progressive=True)


if __name__ == "__main__":
    main()
