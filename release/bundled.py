"""Works of others that are in the wheel itself, with version and licence."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bundled:
    """One work of others in the wheel."""

    name: str
    version: str
    licence: str  # an SPDX identifier, or a name
    folder: str  # or file, with its licence in it
    purl: str | None = None

    @property
    def is_spdx(self) -> bool:
        """Whether the licence is an SPDX identifier."""
        return " " not in self.licence


BUNDLED = (
    Bundled("swagger-ui", "5.35.0", "Apache-2.0", "service/web/swagger-ui", "pkg:npm/swagger-ui-dist@5.35.0"),
    Bundled("WordNet class names", "3.0", "WordNet License", "export/imagenet_classes.txt"),
)
