"""Jobs of the page: queue, processes, progress."""
