"""What `helm test` runs, on a real node: the chart's pod reaches the operator's Service and ends well.

The command itself is not run: nothing resolves a Service's name in the test cluster, and helm makes the pod without the alias that the
test gives it.
"""

from __future__ import annotations

from scripts.render_chart import NAMESPACE, objects, rendered
from tests.apiserver.installation import path_of
from tests.cluster.pods import await_value
from tests.node.platform import PATIENCE, Platform, image_values


def test_the_pod_of_helm_test_succeeds(platform: Platform) -> None:
    api = platform.cluster.api
    documents = objects(rendered({"image": image_values(platform.images.operator)}))
    (pod,) = [document for document in documents if document["kind"] == "Pod"]
    (service,) = [document for document in documents if document["kind"] == "Service"]
    address = api.get(f"{path_of(service)}/{service['metadata']['name']}")["spec"]["clusterIP"]
    # Nothing resolves names in the test cluster: the rest of the pod is the chart's.
    name = f"{service['metadata']['name']}.{NAMESPACE}"
    pod["spec"]["hostAliases"] = [{"ip": address, "hostnames": [name]}]
    made = api.post(path_of(pod), pod)
    path = f"{path_of(pod)}/{made['metadata']['name']}"
    try:
        ended = await_value(lambda: api.get(path)["status"]["phase"] in ("Succeeded", "Failed"), what="the pod's end", timeout=PATIENCE)
        assert ended
        assert (api.get(path)["status"]["phase"], api.text(f"{path}/log")) == ("Succeeded", "200 ok\n\n")
    finally:
        api.delete(path)
