"""The layers around each route: admission, error responses, headers, and the access log."""
