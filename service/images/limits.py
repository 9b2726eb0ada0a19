"""Limits on the memory and CPU time of decoding an image, checked on its header.

The settings limit pixels and sides; the other limits grow with the pixels. A JPEG is measured at the scale at which it
is decoded. Larger JPEGs are therefore accepted within the same memory and CPU time: eight times the pixels in one scan,
and fewer if the decoder has to hold all coefficients.
"""

from dataclasses import dataclass

from service.errors import BadImage
from service.images.header import ImageHeader


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Limits on the size of an image, and on the memory and CPU time of decoding it."""

    max_pixels: int = 26_000_000
    max_side: int = 12_000
    max_scans: int = 100
    max_scan_pixels: int = 270_000_000  # scans x pixels: a scan of 16 bytes can cost a pass over all pixels
    max_bytes: int = 104_000_000  # of decoded samples: 16-bit RGB has 6 a pixel and reaches this at 17 megapixels
    max_webp_work: int = 120_000_000  # 4 x pixels + 2 x bytes of file: 26 megapixels in 17 MB can take 1.2 CPU-seconds
    max_png_cpu_s: float = 0.5  # for inflating: 20 MiB of photo take 0.17, a crafted file 1.8
    are_settings: bool = False  # they come from settings, so error messages name the flags

    @classmethod
    def of(cls, max_pixels: int, max_side: int) -> "ImageLimits":
        """Return the limits for these settings; those on work grow with `max_pixels` from the defaults."""
        usual = DEFAULT_LIMITS
        growth = max(1.0, max_pixels / usual.max_pixels)
        return cls(
            max_pixels=max_pixels,
            max_side=max_side,
            max_scan_pixels=int(growth * usual.max_scan_pixels),
            max_bytes=int(growth * usual.max_bytes),
            max_webp_work=int(growth * usual.max_webp_work),
            max_png_cpu_s=growth * usual.max_png_cpu_s,
            are_settings=True,
        )


DEFAULT_LIMITS = ImageLimits()

# For a JPEG above the limits that is decoded at a reduced scale. 204 megapixels in 18 MiB take 0.3 CPU-seconds.
_REDUCED_PIXELS = 8  # times max_pixels
_COEFFICIENT_BYTES = 8  # times max_pixels: as for the largest CMYK image at full scale
_REDUCED_SCAN_PIXELS = 1.5  # times max_scan_pixels: 48 megapixels in libjpeg's ten scans, 17 MiB, take 0.8 CPU-seconds


def fits(header: ImageHeader, limits: ImageLimits, divisor: int) -> bool:
    """Return whether an image with its sides divided by `divisor` is within the limits on sides and pixels."""
    width, height = -(-header.width // divisor), -(-header.height // divisor)
    return max(width, height) <= limits.max_side and width * height <= limits.max_pixels


def check_limits(header: ImageHeader, limits: ImageLimits, divisor: int = 1) -> None:
    """Raise BadImage for an image that exceeds a limit when it is decoded with its sides divided by `divisor`."""
    width, height = header.width, header.height
    pixels = width * height
    if pixels == 0:
        raise BadImage("The image has no pixels.")
    if pixels > limits.max_pixels or max(width, height) > limits.max_side:
        _check_large(header, limits, divisor)
        return
    if pixels * header.bytes_per_pixel > limits.max_bytes:
        raise BadImage(f"The decoded image has more than {limits.max_bytes:,} bytes; save it with 8 bits a channel.")
    if header.format == "WEBP" and 4 * pixels + 2 * len(header.content) > limits.max_webp_work:
        raise BadImage("The WebP image has too many pixels and bytes; save it smaller, or at a lower quality.")
    if header.scans > limits.max_scans:
        raise _too_many_scans(limits)
    if header.scans * pixels > limits.max_scan_pixels:
        raise _too_much_work(header, limits.max_scan_pixels)


def _check_large(header: ImageHeader, limits: ImageLimits, divisor: int) -> None:
    """Check an image above the limits on pixels and sides, which may be accepted at a reduced scale."""
    width, height, pixels = header.width, header.height, header.width * header.height
    most = _REDUCED_PIXELS * limits.max_pixels
    if not fits(header, limits, divisor):
        if max(width, height) > limits.max_side:
            flag = _flag(limits, "--max-side")
            raise BadImage(
                f"The image is {width} x {height} pixels; a side may have at most {limits.max_side:,}{flag}."
            )
        flag = _flag(limits, "--max-pixels")
        raise BadImage(f"The image has {pixels:,} pixels; at most {limits.max_pixels:,} are accepted{flag}.")
    if pixels > most:
        flag = _flag(limits, "--max-pixels")
        raise BadImage(f"The JPEG has {pixels:,} pixels; at most {most:,} are accepted{flag}.")
    if header.scans > limits.max_scans:
        raise _too_many_scans(limits)
    if header.coefficient_bytes > _COEFFICIENT_BYTES * limits.max_pixels:
        raise BadImage(
            f"The JPEG has {pixels:,} pixels in {header.scans} scans and needs {header.coefficient_bytes:,} bytes to "
            f"decode; at most {_COEFFICIENT_BYTES * limits.max_pixels:,} are allowed. Save it again as baseline JPEG."
        )
    if header.scan_pixels > _REDUCED_SCAN_PIXELS * limits.max_scan_pixels:
        raise _too_much_work(header, int(_REDUCED_SCAN_PIXELS * limits.max_scan_pixels))


def _flag(limits: ImageLimits, name: str) -> str:
    return f" ({name} sets the limit)" if limits.are_settings else "; make it smaller"


def _too_many_scans(limits: ImageLimits) -> BadImage:
    return BadImage(f"The JPEG has more than {limits.max_scans} scans; save it again with fewer.")


def _too_much_work(header: ImageHeader, most: int) -> BadImage:
    return BadImage(
        f"The JPEG has {header.scans} scans of {header.width * header.height:,} pixels; scans times pixels may be at "
        f"most {most:,}. Save it again as baseline JPEG."
    )
