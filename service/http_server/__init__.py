"""uvicorn with limits: accepting connections, and parsing requests in turns."""
