"""What belongs to a release: SBOM, licences of others, and the lock of the image. Nothing of it is installed."""
