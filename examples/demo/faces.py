"""Draw a synthetic face data set in CelebA's format, so that a sweep can be tried without a download.

    python examples/demo/faces.py COUNT FOLDER [--seed 0] [--jobs N]

FOLDER/images/000001.jpg ...   drawn faces, 178 x 218 pixels, like CelebA's aligned ones
FOLDER/faces.csv               `filename`, then one column of -1 / 1 for each of `ATTRIBUTES`
FOLDER/faces.json              what was requested

Face `number` is a pure function of (seed, number): 100 faces are the first 100 of 2,000, on any
number of cores. The folder appears when everything is drawn (FOLDER.partial until then), so that a
partial data set is never mistaken for a complete one.
"""

import argparse
import csv
import json
import math
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

WIDTH, HEIGHT = 178, 218  # pixels of an aligned CelebA image
OVERSAMPLING = 2  # Pillow draws without anti-aliasing: draw larger, then average
DRAWING = 2  # raise it when the pixels change, so that an older folder is not reused

# CelebA's names and order; each of them is visible in the drawing.
ATTRIBUTES = (
    "5_o_Clock_Shadow",
    "Bald",
    "Bangs",
    "Black_Hair",
    "Blond_Hair",
    "Brown_Hair",
    "Bushy_Eyebrows",
    "Eyeglasses",
    "Gray_Hair",
    "Heavy_Makeup",
    "High_Cheekbones",
    "Male",
    "Mouth_Slightly_Open",
    "Mustache",
    "No_Beard",
    "Smiling",
    "Wavy_Hair",
    "Wearing_Earrings",
    "Wearing_Lipstick",
    "Wearing_Necktie",
    "Young",
)

Colour = tuple[int, int, int]
Points = NDArray[np.float64]  # (n, 2): x to the right, y down


# ---------------------------------------------------------------- what a face has


def draw_attributes(rng: np.random.Generator) -> dict[str, bool]:
    """Which attributes one face has: shares and correlations are roughly CelebA's."""
    chance: Iterator[float] = iter(rng.random(24).tolist())

    def yes(share: float) -> bool:
        return next(chance) < share

    male = yes(0.423)  # 42.3 % and 47.5 %: the shares in CelebA30k
    smiling = yes(0.475)
    young = yes(0.63 if male else 0.88)
    bald = yes(0.08 if male else 0.0)
    gray = yes(0.02 if young else 0.40)
    coloured = not (gray or bald)
    hair = next(chance)  # black, brown, blond, or a colour that CelebA has no name for
    stubble = yes(0.28 if male else 0.0)
    beard = yes(0.36 if male else 0.0) and not stubble
    lipstick = yes(0.02 if male else 0.80)
    has = {
        "Male": male,
        "Smiling": smiling,
        "Young": young,
        "Bald": bald,
        "Bangs": yes(0.10 if male else 0.25) and not bald,
        "Gray_Hair": gray and not bald,
        "Black_Hair": coloured and hair < 0.35,
        "Brown_Hair": coloured and 0.35 <= hair < 0.65,
        "Blond_Hair": coloured and hair >= (0.92 if male else 0.72),
        "Wavy_Hair": yes(0.15 if male else 0.45) and not bald,
        "Bushy_Eyebrows": yes(0.35 if male else 0.05),
        "5_o_Clock_Shadow": stubble,
        "No_Beard": not (beard or stubble),
        "Mustache": yes(0.45 if beard else 0.08 if male else 0.0),
        "Wearing_Lipstick": lipstick,
        "Heavy_Makeup": yes(0.75 if lipstick else 0.05) and not male,
        "Mouth_Slightly_Open": yes(0.75 if smiling else 0.25),
        "High_Cheekbones": yes(0.80 if smiling else 0.15),
        "Eyeglasses": yes(0.14 if male else 0.05),
        "Wearing_Earrings": yes(0.02 if male else 0.35),
        "Wearing_Necktie": yes(0.20 if male else 0.0),
    }
    return {name: has[name] for name in ATTRIBUTES}


@dataclass(frozen=True)
class Look:
    """What a face has besides its attributes. Lengths are in half heights of the face."""

    half_width: float
    jaw: float  # 0: as wide as the forehead ... 0.5: pointed
    long_hair: bool
    hair_length: float  # where long hair ends, below the centre of the face
    hair_volume: float
    parting: float
    eye_size: float
    mouth_width: float  # half of it
    mouth_curve: float  # how far the corners stand above the middle
    mouth_gap: float
    lip: float
    skin: Colour
    hair: Colour
    iris: Colour
    lips: Colour
    clothes: Colour


SKINS = (
    (255, 224, 200),
    (241, 194, 160),
    (224, 172, 130),
    (190, 130, 92),
    (141, 85, 56),
    (96, 58, 40),
)
IRISES = ((70, 45, 25), (95, 65, 35), (60, 95, 130), (75, 110, 75), (110, 120, 130))
LIPSTICKS = ((190, 20, 45), (215, 50, 95), (150, 20, 60), (200, 70, 70), (165, 40, 110))


def draw_look(rng: np.random.Generator, has: dict[str, bool]) -> Look:
    """Proportions and colours of a face with these attributes.

    It makes the same draws whatever the attributes are, so that changing one leaves the rest of the face unchanged.
    """
    male, smiling = has["Male"], has["Smiling"]
    place = float(rng.beta(1.3, 1.8)) * (len(SKINS) - 1)
    lighter = min(int(place), len(SKINS) - 2)
    skin = vary(rng, mix(SKINS[lighter], SKINS[lighter + 1], place - lighter), 6)
    lipstick = vary(rng, LIPSTICKS[rng.integers(len(LIPSTICKS))], 10)
    natural_lips = mix(shade(skin, 0.82), (165, 70, 75), 0.42)
    gap = rng.uniform(0.11, 0.21) if smiling else rng.uniform(0.08, 0.17)
    return Look(
        half_width=rng.uniform(0.70, 0.80) + (0.03 if male else 0.0),
        jaw=rng.uniform(0.10, 0.26) if male else rng.uniform(0.22, 0.38),
        long_hair=bool(rng.random() < (0.06 if male else 0.90)),
        hair_length=rng.uniform(0.55, 1.7),
        hair_volume=rng.uniform(0.08, 0.22) + (0.08 if has["Wavy_Hair"] else 0.0),
        parting=rng.uniform(-0.5, 0.5),
        eye_size=rng.uniform(0.9, 1.12) * (1.0 if male else 1.08),
        mouth_width=rng.uniform(0.38, 0.47) if smiling else rng.uniform(0.28, 0.36),
        mouth_curve=rng.uniform(0.16, 0.26) if smiling else rng.uniform(-0.05, 0.03),
        mouth_gap=gap if has["Mouth_Slightly_Open"] else 0.0,
        lip=rng.uniform(0.045, 0.075) if male else rng.uniform(0.06, 0.095),
        skin=skin,
        hair=hair_colour(rng, has),
        iris=vary(rng, IRISES[rng.integers(len(IRISES))], 8),
        lips=lipstick if has["Wearing_Lipstick"] else natural_lips,
        clothes=colour(rng.uniform(25, 215) + rng.normal(0, 32, 3)),
    )


def hair_colour(rng: np.random.Generator, has: dict[str, bool]) -> Colour:
    """A colour that fits the four hair attributes; auburn to red if none of them holds."""
    light = float(rng.random())
    if has["Gray_Hair"]:
        middle = mix((125, 125, 128), (205, 205, 205), light)
    elif has["Black_Hair"]:
        middle = mix((22, 18, 20), (36, 32, 34), light)
    elif has["Brown_Hair"] or has["Bald"]:  # a bald head's brows and beard
        middle = mix((62, 38, 24), (118, 78, 48), light)
    elif has["Blond_Hair"]:
        middle = mix((190, 150, 88), (235, 208, 145), light)
    else:
        middle = mix((110, 45, 25), (178, 84, 42), light)
    return vary(rng, middle, 5)


# ---------------------------------------------------------------- colours and the pen


def colour(values: Iterable[float]) -> Colour:
    """The nearest colour that 8 bits can hold."""
    red, green, blue = (int(min(255, max(0, round(float(v))))) for v in values)
    return red, green, blue


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """`share` of the second colour in the first."""
    return colour(a + (b - a) * share for a, b in zip(first, second, strict=True))


def shade(base: Colour, factor: float) -> Colour:
    return colour(v * factor for v in base)


def vary(rng: np.random.Generator, base: Colour, spread: float) -> Colour:
    return colour(np.array(base) + rng.normal(0, spread, 3))


def smooth(points: Sequence[tuple[float, float]], steps: int = 6) -> Points:
    """A closed Catmull-Rom curve through the points."""
    p1 = np.array(points)
    p0, p2, p3 = (np.roll(p1, shift, axis=0) for shift in (1, -1, -2))
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    a, b, c, d = (p[:, None, :] for p in (p0, p1, p2, p3))
    curve = (
        2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3
    )
    return np.asarray(0.5 * curve).reshape(-1, 2)


@cache
def circle(count: int) -> Points:
    """`count` points on the circle of radius 1."""
    angle = np.linspace(0, 2 * math.pi, count, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def ring(x: float, y: float, rx: float, ry: float, count: int = 24) -> Points:
    """An ellipse."""
    return np.array((x, y)) + np.array((rx, ry)) * circle(count)


@dataclass(frozen=True)
class Pen:
    """Draws on an image in face coordinates: origin at its centre, 1 is half its height.

    `turn` is the yaw of the head in radians: features lie on a cylinder of radius `half_width`.
    """

    canvas: ImageDraw.ImageDraw
    centre: tuple[float, float]  # pixels
    unit: float  # pixels
    roll: float  # radians
    turn: float
    half_width: float

    def place(self, points: Points, on_head: bool) -> list[tuple[float, float]]:
        """Convert face coordinates to pixels."""
        x, y = points[:, 0], points[:, 1]
        if on_head:
            angle = np.arcsin(np.clip(x / self.half_width, -1, 1)) + self.turn
            x = self.half_width * np.sin(np.clip(angle, -math.pi / 2, math.pi / 2))
        sine, cosine = math.sin(self.roll), math.cos(self.roll)
        across = self.centre[0] + self.unit * (x * cosine - y * sine)
        down = self.centre[1] + self.unit * (x * sine + y * cosine)
        return list(zip(across.tolist(), down.tolist(), strict=True))

    def fill(self, points: Points, ink: Colour, alpha: int = 255, on_head: bool = True) -> None:
        self.canvas.polygon(self.place(points, on_head), fill=(*ink, alpha))

    def line(
        self, points: Points, ink: Colour, width: float, alpha: int = 255, on_head: bool = True
    ) -> None:
        """`width` in half heights of the face."""
        pixels = max(1, round(width * self.unit))
        self.canvas.line(
            self.place(points, on_head), fill=(*ink, alpha), width=pixels, joint="curve"
        )

    def glow(self, x: float, y: float, rx: float, ry: float, ink: Colour, alpha: int) -> None:
        """A soft spot: ellipses on top of each other, each a little of the whole `alpha`."""
        for size in (1.0, 0.8, 0.6, 0.4):
            self.fill(ring(x, y, rx * size, ry * size, 16), ink, alpha // 4)


# ---------------------------------------------------------------- the parts, back to front


def outline(look: Look, size: float = 1.0, count: int = 48) -> Points:
    """The edge of the face: an ellipse that narrows to the jaw."""
    points = ring(0, 0, look.half_width, 1.0, count)
    below = np.clip(points[:, 1], 0, 1)
    squareness = 0.12 - 0.3 * look.jaw  # a wide jaw is also an angular one
    points[:, 0] *= 1 - look.jaw * below**2 + squareness * np.sin(math.pi * below) * (below > 0)
    return points * size


def draw_hair_behind(pen: Pen, look: Look, has: dict[str, bool]) -> None:
    """What the head covers: the fall of long hair, or just the cap of short hair."""
    if has["Bald"]:
        return
    w, v = look.half_width, look.hair_volume
    if look.long_hair:
        end = look.hair_length
        right = [(0.0, -1.02 - v), (0.62 * w, -0.92 - v), (w + v, -0.35), (w + v * 1.1, 0.3)]
        right += [(w + v * 1.2, end * 0.8), (w * 0.95, end), (w * 0.5, end - 0.1)]
    else:
        right = [
            (0.0, -1.0 - v),
            (0.62 * w, -0.90 - v),
            (w + 0.25 * v + 0.03, -0.45),
            (w + 0.03, 0.02),
        ]
        right += [(w * 0.8, 0.1)]
    points = smooth(right + [(-x, y) for x, y in right[:0:-1]])
    if has["Wavy_Hair"]:
        along = np.linspace(0, 2 * math.pi, len(points), endpoint=False)
        points *= 1 + 0.035 * np.sin(26 * along)[:, None]
    pen.fill(points, shade(look.hair, 0.85), on_head=False)
    if look.long_hair:
        for side in (-1, 1):
            for k, bright in enumerate((0.65, 1.1, 0.75)):
                y = np.linspace(-0.5, look.hair_length - 0.12, 14)
                wave = 0.045 * np.sin(9 * y + k) if has["Wavy_Hair"] else 0.012 * np.sin(3 * y + k)
                strand = np.stack([side * (w + v * (0.25 + 0.3 * k)) + wave, y], axis=1)
                pen.line(strand, shade(look.hair, bright), 0.03, 150, on_head=False)


def draw_body(pen: Pen, look: Look, has: dict[str, bool]) -> None:
    """Neck, shoulders, and a tie."""
    broad = 1.45 if has["Male"] else 1.2
    neck = look.half_width * (0.62 if has["Male"] else 0.48)
    throat = np.array([(-neck, 0.4), (neck, 0.4), (neck * 1.1, 1.4), (-neck * 1.1, 1.4)])
    pen.fill(throat, shade(look.skin, 0.76), on_head=False)
    right = [(neck * 1.25, 1.14), (broad * 0.8, 1.28), (broad, 1.5), (broad + 0.3, 2.6)]
    left = [(-x, y) for x, y in reversed(right)]
    pen.fill(smooth([*right, *left, (0, 1.3)]), look.clothes, on_head=False)
    collar = [(-neck * 1.22, 1.12), (neck * 1.22, 1.12), (neck * 0.7, 1.3), (-neck * 0.7, 1.3)]
    pen.fill(smooth(collar), shade(look.skin, 0.84), on_head=False)
    if has["Wearing_Necktie"]:
        for side in (-1, 1):
            points = [(side * neck * 1.25, 1.02), (0, 1.3), (side * 0.34, 1.62)]
            pen.fill(np.array(points), (238, 238, 240), on_head=False)
        tie = (150, 25, 40) if sum(look.clothes) % 2 else (30, 50, 120)
        points = [(-0.13, 1.16), (0.13, 1.16), (0.08, 1.34), (0.2, 2.4), (-0.2, 2.4), (-0.08, 1.34)]
        pen.fill(np.array(points), tie, on_head=False)


def draw_head(pen: Pen, look: Look, has: dict[str, bool]) -> None:
    """Ears, and the skin of the face, brighter towards its middle."""
    w = look.half_width
    for side in (-1, 1):
        if not look.long_hair:
            pen.fill(ring(side * w * 1.0, 0.02, 0.10, 0.19), shade(look.skin, 0.84), on_head=False)
            pen.fill(ring(side * w * 1.01, 0.02, 0.05, 0.11), shade(look.skin, 0.68), on_head=False)
    for k in range(7):
        layer = outline(look, 1 - 0.06 * k) + np.array([0.25 * pen.turn * k / 6, -0.02 * k / 6])
        pen.fill(layer, shade(look.skin, 0.86 + 0.14 * k / 6), on_head=False)
    if not has["Young"]:
        for y in (-0.66, -0.57, -0.48):
            x = np.linspace(-0.33, 0.33, 9)
            pen.line(np.stack([x, y + 0.03 * x**2 * 9], axis=1), shade(look.skin, 0.68), 0.016, 190)
    if has["Heavy_Makeup"]:
        for side in (-1, 1):
            pen.glow(side * 0.44, 0.24, 0.20, 0.15, (225, 60, 90), 110)
    if has["High_Cheekbones"]:
        for side in (-1, 1):
            pen.glow(side * 0.42, 0.14, 0.19, 0.10, shade(look.skin, 1.25), 190)
            x = np.linspace(0.28, 0.54, 7)
            under = np.stack([side * x, 0.29 - 0.5 * (x - 0.26) ** 2 - 0.12 * (x - 0.26)], axis=1)
            pen.line(under, shade(look.skin, 0.66), 0.022, 140)


def draw_facial_hair(pen: Pen, look: Look, has: dict[str, bool]) -> None:
    """Stubble, a beard, a moustache; under the mouth, which is drawn later."""
    jaw = outline(look, count=96)
    jaw = jaw[jaw[:, 1] > 0.12]
    around = np.argsort(np.arctan2(jaw[:, 1], jaw[:, 0]))  # from ear to chin to ear
    jaw = jaw[around]
    x = np.linspace(-0.9, 0.9, 13) * look.half_width
    cheek = 0.34 - 0.30 * (np.abs(x) / look.half_width) ** 4  # the upper edge, highest at the ears
    if not has["Mustache"] and not has["5_o_Clock_Shadow"]:
        cheek += 0.22 * np.exp(-((x / 0.3) ** 4))  # the upper lip is bare
    band = np.concatenate([jaw, np.stack([x, cheek], axis=1)])
    if has["5_o_Clock_Shadow"]:
        for inset in (0.0, 0.05, 0.10):
            fading = band * (1 - 1.2 * inset) + np.array([0, 0.95 * inset])
            pen.fill(fading, mix((55, 57, 66), look.hair, 0.3), 48, on_head=False)
    elif not has["No_Beard"]:
        pen.fill(band * np.array([1.03, 1.07]), shade(look.hair, 0.9), 240, on_head=False)
        for k in np.linspace(-0.8, 0.8, 9):  # strands
            fall = np.array([(k * 0.62, 0.62 - 0.3 * k**2), (k * 0.54, 1.0 - 0.42 * k**2)])
            pen.line(fall, shade(look.hair, 1.35), 0.02, 90, on_head=False)
    if has["Mustache"]:
        y = mouth_middle(look) - look.mouth_gap * 0.35 - look.lip
        half, lift = look.mouth_width * 0.95, max(look.mouth_curve, 0.0)
        side = [(half * 0.55, y - 0.11 - 0.3 * lift), (half, y + 0.06 - 0.85 * lift)]
        side += [(half * 0.45, y + 0.02 - 0.2 * lift)]
        below = [(-x, y) for x, y in reversed(side)]
        pen.fill(smooth([(0, y - 0.14), *side, (0, y - 0.01), *below]), shade(look.hair, 0.8))


def draw_eyes(pen: Pen, look: Look, has: dict[str, bool], gaze: float) -> None:
    """Eyes, brows, and what lies around them."""
    wide = 0.165 * look.eye_size
    high = 0.085 * look.eye_size * (0.85 if has["Smiling"] else 1.0)
    brow = look.hair if not has["Bald"] and not has["Blond_Hair"] else shade(look.hair, 0.7)
    brow = mix(brow, (30, 20, 15), 0.35)
    thick = 0.095 if has["Bushy_Eyebrows"] else 0.045
    for side in (-1, 1):
        x, y = side * 0.35, -0.13
        if not has["Young"]:
            bag = np.linspace(-1, 1, 9)
            pen.line(
                np.stack([x + 0.15 * bag, y + 0.19 - 0.05 * bag**2], axis=1),
                shade(look.skin, 0.66),
                0.018,
                180,
            )
        pen.glow(x, y - 0.04, wide * 1.35, high * 1.9, shade(look.skin, 0.7), 90)
        if has["Heavy_Makeup"]:
            pen.fill(
                smooth(
                    [
                        (x - wide * 1.1, y),
                        (x, y - high * 2.1),
                        (x + wide * 1.1, y - high * 0.6),
                        (x, y - 0.02),
                    ]
                ),
                mix(look.lips, (90, 60, 130), 0.6),
                150,
            )
        lid = smooth([(x - wide, y + 0.01), (x, y - high), (x + wide, y), (x, y + high * 0.8)])
        pen.fill(lid, (244, 243, 240))
        pen.fill(ring(x + gaze, y - 0.005, high * 0.92, high * 0.92, 18), look.iris)
        pen.fill(ring(x + gaze, y - 0.005, high * 0.45, high * 0.45, 14), (12, 10, 10))
        pen.fill(ring(x + gaze + 0.025, y - 0.03, 0.018, 0.018, 8), (255, 255, 255))
        u = np.linspace(-1, 1, 11)
        lash = np.stack([x + u * wide * 1.08, y - high * (1 - u**2)], axis=1)
        pen.line(lash, (25, 18, 18), 0.045 if has["Heavy_Makeup"] else 0.026)
        arch = 0.05 if has["Male"] else 0.085
        ends = np.stack([x + u * 0.21, y - 0.20 - arch * (1 - u**2) - 0.02 * u * side], axis=1)
        taper = thick * (1 - 0.45 * np.clip(u * side, 0, 1))[:, None] * np.array([0.0, 0.5])
        pen.fill(np.concatenate([ends - taper, (ends + taper)[::-1]]), brow)


def draw_nose(pen: Pen, look: Look, has: dict[str, bool], length: float) -> None:
    """The shadow of its ridge, its tip and nostrils, and the folds from it to the mouth."""
    dark, side = shade(look.skin, 0.70), 1 if pen.turn < 0 else -1
    ridge = np.array([(side * 0.07, -0.1), (side * 0.075, 0.1), (side * 0.12, length - 0.03)])
    pen.line(ridge, dark, 0.022, 120)
    pen.glow(0, length - 0.06, 0.07, 0.12, shade(look.skin, 1.18), 110)
    u = np.linspace(-1, 1, 9)
    nostrils = length + 0.025 * (1 - 2 * np.abs(np.abs(u) - 0.5))
    pen.line(np.stack([0.11 * u, nostrils], axis=1), dark, 0.028, 210)
    if not has["Young"] or has["Smiling"]:
        t = np.linspace(0, 1, 8)
        for side in (-1, 1):
            across = side * (0.17 + (look.mouth_width - 0.08) * t**1.3)
            fold = np.stack([across, length - 0.02 + 0.24 * t], axis=1)
            pen.line(fold, dark, 0.018, 130)


def mouth_middle(look: Look) -> float:
    """Height of the middle of the closed mouth; its corners stand `mouth_curve` above it."""
    return 0.53 + 0.4 * look.mouth_curve


def draw_mouth(pen: Pen, look: Look, has: dict[str, bool]) -> None:
    """Lips along a parabola; between them, if the mouth is open, darkness and teeth."""
    u = np.linspace(-1, 1, 21)
    arch = 1 - u**2  # 0 at the corners, 1 in the middle
    x = look.mouth_width * u
    line = mouth_middle(look) - look.mouth_curve * u**2
    upper = line - look.mouth_gap * arch * 0.35
    lower = line + look.mouth_gap * arch * 0.65
    bow = look.lip * arch**0.6 * (1 - 0.25 * np.exp(-((u / 0.16) ** 2)))

    def between(top: NDArray[np.float64], bottom: NDArray[np.float64]) -> Points:
        edges = np.stack([x, top], axis=1), np.stack([x, bottom], axis=1)[::-1]
        return np.concatenate(edges)

    pen.fill(between(upper - bow, upper), shade(look.lips, 0.9))
    pen.fill(between(lower, lower + look.lip * 1.15 * arch**0.6), look.lips)
    if has["Mouth_Slightly_Open"]:
        pen.fill(between(upper, lower), (70, 18, 24))
        teeth = upper + (lower - upper) * (0.75 if has["Smiling"] else 0.35)
        pen.fill(between(upper, teeth), (248, 246, 240))
    else:
        pen.line(np.stack([x, line], axis=1), shade(look.lips, 0.5), 0.024)
    for corner in (-1, 1):
        pen.glow(corner * look.mouth_width, float(line[0]), 0.035, 0.03, shade(look.skin, 0.5), 160)


def draw_hair_in_front(pen: Pen, look: Look, has: dict[str, bool]) -> None:
    """The hairline, the fringe, and strands on them."""
    w, v = look.half_width, look.hair_volume
    if has["Bald"]:
        pen.glow(0.12, -0.78, 0.2, 0.1, (255, 255, 255), 110)
        return
    x = np.linspace(-0.9, 0.9, 13)
    apart = np.abs(x - look.parting)
    if has["Bangs"]:
        edge = -0.36 - 0.05 * x**2 + 0.025 * (np.arange(13) % 2)
    else:
        edge = (-0.84 if has["Young"] else -0.90) + 0.30 * apart**1.3
        edge = np.minimum(edge + 0.10 * np.abs(x) ** 6, -0.36)
    right = [(0.62 * w, -0.93 - v), (w * 1.02 + 0.2 * v, -0.52), (w * 1.02, -0.12)]
    left = [(-x, y) for x, y in reversed(right)]
    temple = [(w * 0.93, -0.2), (-w * 0.93, -0.2)]
    hairline = list(zip((x * w).tolist(), edge.tolist(), strict=True))
    crown = smooth([*left, (0, -1.03 - v), *right, temple[0], *hairline[::-1], temple[1]], 4)
    pen.fill(crown, look.hair, on_head=False)
    t = np.linspace(0, 1, 7)
    for k, (end_x, end_y) in enumerate(hairline):
        wave = 0.03 * np.sin(12 * t + k) if has["Wavy_Hair"] else 0.0
        start_x, start_y = 0.6 * look.parting * w, -0.97 - v
        across = start_x + (end_x * 1.05 - start_x) * np.sqrt(t) + wave
        strand = np.stack([across, start_y + (end_y - 0.04 - start_y) * t], axis=1)
        pen.line(strand, shade(look.hair, 1.35 if k % 2 else 0.7), 0.022, 100, on_head=False)


def draw_things(pen: Pen, look: Look, has: dict[str, bool], metal: Colour) -> None:
    """Glasses and earrings."""
    if has["Wearing_Earrings"]:
        for side in (-1, 1):
            x = side * (look.half_width + 0.02)
            pen.line(ring(x, 0.36, 0.05, 0.10)[[*range(24), 0]], metal, 0.035, on_head=False)
            pen.fill(ring(x, 0.25, 0.035, 0.035, 12), metal, on_head=False)
    if has["Eyeglasses"]:
        frame = (25, 22, 24) if sum(metal) % 2 else (95, 60, 35)
        for side in (-1, 1):
            glass = smooth(
                [
                    (side * 0.11, -0.24),
                    (side * 0.34, -0.29),
                    (side * 0.58, -0.24),
                    (side * 0.56, 0.02),
                    (side * 0.35, 0.08),
                    (side * 0.15, 0.03),
                ]
            )
            pen.fill(glass, (200, 220, 235), 45)
            pen.line(np.concatenate([glass, glass[:2]]), frame, 0.045)
            pen.line(np.array([(side * 0.58, -0.2), (side * look.half_width, -0.14)]), frame, 0.04)
        pen.line(np.array([(-0.12, -0.17), (0.0, -0.20), (0.12, -0.17)]), frame, 0.045)


# ---------------------------------------------------------------- the picture


def background(rng: np.random.Generator) -> Image.Image:
    """Soft patches of two colours, as a room out of focus."""
    grey, hue = rng.uniform(30, 215, (2, 1)), rng.normal(0, 24, (2, 3))
    first, second = grey + hue
    patches = first + (second - first) * rng.random((5, 4, 1)) + rng.normal(0, 7, (5, 4, 3))
    small = Image.fromarray(np.clip(patches, 0, 255).astype(np.uint8))
    soft = small.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    return soft.resize((WIDTH * OVERSAMPLING, HEIGHT * OVERSAMPLING), Image.Resampling.NEAREST)


def expose(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """Light from one side, warm or cold, weaker or stronger, and sensor noise."""
    angle, strength = rng.uniform(0, 2 * math.pi), rng.uniform(0, 0.32)
    x = np.linspace(-1, 1, WIDTH)[None, :, None]
    y = np.linspace(-1, 1, HEIGHT)[:, None, None]
    light = 1 + strength * (math.cos(angle) * x + math.sin(angle) * y)
    tint = (1 + rng.normal(0, 0.035, 3)) * rng.uniform(0.70, 1.12)
    pixels = np.asarray(image) * (light.astype(np.float32) * tint.astype(np.float32))
    pixels += rng.standard_normal(pixels.shape, dtype=np.float32) * np.float32(rng.uniform(1, 9))
    return Image.fromarray(np.clip(pixels, 0, 255, out=pixels).astype(np.uint8))


def draw_picture(rng: np.random.Generator, has: dict[str, bool]) -> Image.Image:
    """A face with these attributes: RGB, 178 x 218 pixels."""
    look = draw_look(rng, has)
    image = background(rng)
    across, down = WIDTH / 2 + rng.normal(0, 4), HEIGHT * 0.55 + rng.normal(0, 4)
    pen = Pen(
        canvas=ImageDraw.Draw(image, "RGBA"),  # this mode blends what it draws
        centre=(across * OVERSAMPLING, down * OVERSAMPLING),
        unit=rng.uniform(65, 78) * OVERSAMPLING,
        roll=float(np.clip(rng.normal(0, 0.10), -0.3, 0.3)),
        turn=float(np.clip(rng.normal(0, 0.18), -0.4, 0.4)),
        half_width=look.half_width,
    )
    gaze, nose_length = rng.uniform(-0.035, 0.035), rng.uniform(0.20, 0.28)
    metal = mix((212, 175, 85), (200, 204, 210), float(rng.random()))
    draw_hair_behind(pen, look, has)
    draw_body(pen, look, has)
    draw_head(pen, look, has)
    draw_facial_hair(pen, look, has)
    draw_nose(pen, look, has, nose_length)
    draw_mouth(pen, look, has)
    draw_eyes(pen, look, has, gaze)
    draw_hair_in_front(pen, look, has)
    draw_things(pen, look, has, metal)
    return expose(rng, image.reduce(OVERSAMPLING))


def draw_face(seed: int, number: int) -> tuple[Image.Image, dict[str, int]]:
    """Face `number` of data set `seed`: its image (RGB, 178 x 218 pixels), and -1 or 1 for each of `ATTRIBUTES`."""
    rng = np.random.default_rng((seed, number))
    has = draw_attributes(rng)
    return draw_picture(rng, has), {name: 1 if yes else -1 for name, yes in has.items()}


# ---------------------------------------------------------------- the folder


def write_face(seed: int, images: Path, number: int) -> list[str | int]:
    """Draw and save one face; returns its row of the table."""
    image, attributes = draw_face(seed, number)
    name = f"{number:06d}.jpg"
    image.save(images / name, quality=90)
    return [name, *attributes.values()]


def written_faces(seed: int, images: Path, count: int, jobs: int) -> Iterator[list[str | int]]:
    """Rows of the table in order, while `jobs` processes draw."""
    draw, numbers = partial(write_face, seed, images), range(1, count + 1)
    if jobs == 1:
        yield from map(draw, numbers)
        return
    with multiprocessing.Pool(jobs) as pool:
        yield from pool.imap(draw, numbers, chunksize=16)


def write_dataset(folder: Path, seed: int, count: int, jobs: int) -> None:
    """Draw faces 1 ... `count` into `folder`, which must not exist, or be empty."""
    partial_folder = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial_folder, ignore_errors=True)  # from a run that was killed
    images = partial_folder / "images"
    images.mkdir(parents=True)
    rows = []
    for row in written_faces(seed, images, count, jobs):
        rows.append(row)
        if len(rows) % 500 == 0:
            print(f"{len(rows):,} of {count:,} faces", flush=True)
    with (partial_folder / "faces.csv").open("w", newline="", encoding="utf-8") as table:
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["filename", *ATTRIBUTES])
        writer.writerows(rows)
        table.flush()
        os.fsync(table.fileno())
    with (partial_folder / "faces.json").open("w", encoding="utf-8") as marker:
        json.dump(request(seed, count), marker)
        marker.flush()
        os.fsync(marker.fileno())
    partial_folder.rename(folder)


def request(seed: int, count: int) -> dict[str, int]:
    """What determines the content of a folder."""
    return {"seed": seed, "count": count, "drawing": DRAWING}


def found(folder: Path) -> dict[str, int] | None:
    """What an existing folder was drawn for; None if it holds something else."""
    try:
        content: dict[str, int] = json.loads((folder / "faces.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content


def positive(text: str) -> int:
    """An argument that counts something."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, but is {value}")
    return value


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("count", type=positive, metavar="COUNT", help="number of faces")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder to create")
    parser.add_argument(
        "--seed", type=int, default=0, help="another seed: other faces (default: 0)"
    )
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    parser.add_argument(
        "--jobs", type=positive, default=cores, help="processes (default: all cores)"
    )
    arguments = parser.parse_args(words)
    folder, seed, count = arguments.folder, arguments.seed, arguments.count
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if found(folder) == request(seed, count):
            print(f"{folder} already has these {count:,} faces of seed {seed}: nothing to do")
            return 0
        print(
            f"{folder} must be new, or hold {count} faces of seed {seed}, but it holds "
            f"{found(folder) or 'something else'}; name another folder, or remove it",
            file=sys.stderr,
        )
        return 2
    started = time.monotonic()
    write_dataset(folder, seed, count, arguments.jobs)
    print(f"{count:,} faces in {folder}, {time.monotonic() - started:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
