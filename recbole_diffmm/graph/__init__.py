"""Sparse user-item graphs: building, dropping and propagating. Imports torch alone."""

from recbole_diffmm.graph.adjacency import SparseAdjacency, bipartite_edges, build_adjacency
from recbole_diffmm.graph.dropout import drop_edges
from recbole_diffmm.graph.propagation import propagate, sum_over_layers
from recbole_diffmm.graph.rows import unit_rows

__all__ = [
    "SparseAdjacency",
    "bipartite_edges",
    "build_adjacency",
    "drop_edges",
    "propagate",
    "sum_over_layers",
    "unit_rows",
]
