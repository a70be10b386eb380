"""Plans, distributes and publishes. Owns Dask, zarr, GeoJSON and the command line."""

__all__: list[str] = []
