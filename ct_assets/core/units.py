"""Conversions of units that people forget to announce, to name the likely cause of a changed column."""

from ct_assets.core.profile import NumericColumn

#: (what was sent, factor, offset): new = factor * old + offset.
_CONVERSIONS: tuple[tuple[str, float, float], ...] = (
    ("miles sent as kilometres", 1.609344, 0.0),
    ("kilometres sent as miles", 1 / 1.609344, 0.0),
    ("feet sent as metres", 0.3048, 0.0),
    ("metres sent as feet", 1 / 0.3048, 0.0),
    ("inches sent as millimetres", 25.4, 0.0),
    ("millimetres sent as inches", 1 / 25.4, 0.0),
    ("pounds sent as kilograms", 0.45359237, 0.0),
    ("kilograms sent as pounds", 1 / 0.45359237, 0.0),
    ("Fahrenheit sent as Celsius", 5 / 9, -160 / 9),
    ("Celsius sent as Fahrenheit", 9 / 5, 32.0),
    ("Celsius sent as kelvin", 1.0, 273.15),
    ("kelvin sent as Celsius", 1.0, -273.15),
    ("a unit 1000 times smaller (km to m, s to ms)", 1e3, 0.0),
    ("a unit 1000 times larger (m to km, ms to s)", 1e-3, 0.0),
    ("fractions sent as per cent, or euros as cents", 1e2, 0.0),
    ("per cent sent as fractions, or cents as euros", 1e-2, 0.0),
    ("hours sent as minutes, or minutes as seconds", 60.0, 0.0),
    ("minutes sent as hours, or seconds as minutes", 1 / 60, 0.0),
)


def unit_hint(old: NumericColumn, new: NumericColumn, noise: float = 0.0) -> str | None:
    """The known conversion that best explains both the mean and the spread of `new`, or None.

    The mean has to fit within 10 % of the converted spread (or the sampling `noise` of the old mean, same unit, if
    larger), the standard deviation within 25 %. Without spread, the mean within 1 %.
    """
    fits: list[tuple[float, str]] = []
    for name, factor, offset in _CONVERSIONS:
        mean, spread = factor * old.mean + offset, factor * old.std
        allowed = max(0.1 * spread, factor * noise) if spread > 0 else 0.01 * abs(mean)
        gap = abs(new.mean - mean)
        same_spread = not (spread > 0 and new.std > 0) or 0.8 <= new.std / spread <= 1.25
        if gap <= allowed and same_spread:
            fits.append((gap / allowed if allowed else 0.0, name))
    return f"this looks like {min(fits)[1]}" if fits else None
