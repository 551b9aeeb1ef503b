"""Which signatures ask for XLA, which TensorFlow-Serving has switched off: it answers them with an error."""

from collections.abc import Iterable, Iterator

MUST_COMPILE = "_XlaMustCompile"  # attribute of what `tf.function(jit_compile=True)` makes


def signatures_that_need_it(meta_graph) -> dict[str, str]:
    """Find the signatures that call a function which must be compiled.

    Args:
        meta_graph: The `MetaGraphDef` of a SavedModel.

    Returns:
        For each of them, by its name, the call in the words of TensorFlow's errors.
    """
    functions = {function.signature.name: function for function in meta_graph.graph_def.library.function}
    nodes = {node.name: node for node in meta_graph.graph_def.node}
    found = {}
    for name, signature in meta_graph.signature_def.items():
        outputs = (info.name.split(":")[0] for info in signature.outputs.values())
        if place := _first_call(_ancestors(nodes, outputs), "", functions, set()):
            found[name] = place
    return found


def _ancestors(nodes: dict, names: Iterable[str]) -> Iterator:
    """Return the nodes that some nodes are computed from, themselves included."""
    waiting, seen = list(names), set()
    while waiting:
        name = waiting.pop()
        if name in nodes and name not in seen:
            seen.add(name)
            yield nodes[name]
            waiting += (source.lstrip("^").split(":")[0] for source in nodes[name].input)


def _first_call(nodes: Iterable, inside: str, functions: dict, seen: set[str]) -> str | None:
    """Look through nodes, and the functions that they call, for a call of a function that must be compiled."""
    for node in nodes:
        for name in (node.op, *_called(node)):
            if name not in functions:
                continue
            if functions[name].attr[MUST_COMPILE].b:
                return f"{inside}{{{{node {node.name}}}}}"
            if name not in seen:
                seen.add(name)
                deeper = _first_call(functions[name].node_def, f"{{{{function_node {name}}}}}", functions, seen)
                if deeper:
                    return deeper
    return None


def _called(node) -> Iterator[str]:
    for value in node.attr.values():
        if value.HasField("func"):
            yield value.func.name
        yield from (function.name for function in value.list.func)
