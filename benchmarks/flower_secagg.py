"""One round of Flower's SecAgg+: its own workflow and client mod, in memory, no wire; privacy.py runs it.

Prints JSON: seconds of all clients together, of the server, and the average that comes out.
"""

from __future__ import annotations

import copy
import json
import logging
import sys
import time

import numpy as np
from flwr.client.mod import secaggplus_mod
from flwr.common import Code, Context, FitRes, Message, RecordDict, Status, ndarrays_to_parameters
from flwr.compat.common import recorddict_compat as compat
from flwr.server import LegacyContext, SimpleClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.server.strategy import FedAvg
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD, Key
from flwr.supercore.task_identity import TaskIdentity

logging.disable(logging.CRITICAL)
TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 0


class Proxy(ClientProxy):
    """A client's name; nobody calls it."""

    def __init__(self, node: int) -> None:
        super().__init__(str(node))
        self.node_id = node

    def get_properties(self, *_):
        raise NotImplementedError

    get_parameters = fit = evaluate = reconnect = get_properties


class Memory:
    """A grid whose clients are function calls; ``gone`` answer with an error once they are to send their words."""

    def __init__(self, values: dict[int, np.ndarray], gone: set[int]) -> None:
        self.values, self.gone, self.stage = values, gone, 0
        self.seconds = self.copying = 0.0
        self.contexts = {
            n: Context(run_id=1, node_id=n, node_config={}, state=RecordDict(), run_config={}) for n in values
        }

    def send_and_receive(self, messages, timeout=None):
        answers = []
        for message in messages:
            node = message.metadata.dst_node_id
            if self.stage >= 2 and node in self.gone:
                continue
            begin = time.perf_counter()
            message.content = copy.deepcopy(message.content)  # the workflow gives one object to all
            self.copying += time.perf_counter() - begin
            begin = time.perf_counter()
            answers.append(secaggplus_mod(message, self.contexts[node], self.fit))
            self.seconds += time.perf_counter() - begin
            answers[-1].metadata.__dict__["_src_node_id"] = node
        self.stage += 1
        return answers

    def fit(self, message: Message, _context: Context) -> Message:
        words = ndarrays_to_parameters([self.values[message.metadata.dst_node_id]])
        result = FitRes(Status(Code.OK, ""), words, num_examples=1, metrics={})
        return Message(compat.fitres_to_recorddict(result, keep_input=False), reply_to=message)


def one_round(values: dict[int, np.ndarray], gone: set[int]) -> dict:
    manager, first = SimpleClientManager(), next(iter(values.values()))
    for node in values:
        manager.register(Proxy(node))
    strategy = FedAvg(min_fit_clients=len(values), min_available_clients=len(values))
    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={})
    legacy = LegacyContext(context, config=None, strategy=strategy, client_manager=manager)
    legacy.state.config_records[MAIN_CONFIGS_RECORD] = compat.ConfigRecord({Key.CURRENT_ROUND: 1})
    start = ndarrays_to_parameters([np.zeros_like(first)])
    legacy.state.array_records[MAIN_PARAMS_RECORD] = compat.parameters_to_arrayrecord(start, keep_input=True)
    grid, begin, busy = Memory(values, gone), time.perf_counter(), time.process_time()
    SecAggPlusWorkflow(num_shares=1.0, reconstruction_threshold=0.67, max_weight=1)(grid, legacy)
    total, busy = time.perf_counter() - begin, time.process_time() - busy
    out = compat.arrayrecord_to_parameters(legacy.state.array_records[MAIN_PARAMS_RECORD], keep_input=True)
    average = np.frombuffer(out.tensors[0][-first.nbytes :], dtype=first.dtype)
    return {
        "clients": grid.seconds,
        "server": total - grid.seconds - grid.copying,
        "cpu": busy,
        "first": float(average[0]),
    }


if __name__ == "__main__":
    parties, size, dropped, value = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    held = {n: np.full(size, value, dtype=np.float64) for n in range(1, parties + 1)}
    print(json.dumps(one_round(held, set(list(held)[:dropped]))))
