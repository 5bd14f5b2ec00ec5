"""The doors and the API: the only home of the aiohttp server."""
