"""The uvicorn HTTP server with limits on connections, request heads, parsing time and shutdown."""
