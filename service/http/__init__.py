"""What surrounds each route: access, admission, errors, headers, and the access log."""
