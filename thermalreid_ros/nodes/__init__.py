"""The nodes, one executable each: parameters to a core object to messages."""

import os

# Four nodes share the cores. Small products of matrices that are spread over all of them wait for a core that another
# node has. Said before anything imports numpy; who has set it keeps it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# A map keeps the blocks that it has read (maps.store); GDAL would keep every one of them a second time. Megabytes.
os.environ.setdefault("GDAL_CACHEMAX", "16")
