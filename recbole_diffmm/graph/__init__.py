"""Sparse graphs of users and items: building, dropping and propagating. Imports torch alone."""

from recbole_diffmm.graph.adjacency import (
    SparseAdjacency,
    bipartite_edges,
    build_adjacency,
    mean_weight,
    symmetric_weight,
)
from recbole_diffmm.graph.attention import aggregate, agreement, edges_to_picked
from recbole_diffmm.graph.dropout import drop_edges, sample_edges
from recbole_diffmm.graph.edges import (
    Edges,
    kept_weight,
    order_edges,
    softmax_by_receiver,
    undirected_keep,
)
from recbole_diffmm.graph.knn import (
    Neighbours,
    knn_edges,
    knn_graph,
    nearest_items,
    neighbour_edges,
    normalize_by_sums,
)
from recbole_diffmm.graph.propagation import mean_over_layers, propagate, sum_over_layers
from recbole_diffmm.graph.rows import unit_rows

__all__ = [
    "Edges",
    "Neighbours",
    "SparseAdjacency",
    "aggregate",
    "agreement",
    "bipartite_edges",
    "build_adjacency",
    "drop_edges",
    "edges_to_picked",
    "kept_weight",
    "knn_edges",
    "knn_graph",
    "mean_over_layers",
    "mean_weight",
    "nearest_items",
    "neighbour_edges",
    "normalize_by_sums",
    "order_edges",
    "propagate",
    "sample_edges",
    "softmax_by_receiver",
    "sum_over_layers",
    "symmetric_weight",
    "undirected_keep",
    "unit_rows",
]
