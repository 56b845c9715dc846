"""What every layer uses: configs and their hashes, registries, random streams, files that are whole or absent."""
