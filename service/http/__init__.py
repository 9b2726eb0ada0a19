"""The layers around each route: access control, admission, error responses, headers, and the access log."""
