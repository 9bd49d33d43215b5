"""Manifests as text, for the tests of this folder."""

GOOD = """\
apiVersion: finetune.dev/v1alpha1
kind: FineTuneJob
metadata: {name: birds}
spec:
  model: {uri: "file://model"}
  stages:
  - name: domain
    objective: causalLanguageModeling
    data: {train: [{uri: "file://glosses.jsonl"}]}
    method: {type: lora}
    training: {learningRate: 2e-4, maxSteps: 10}
    handOver: merge
  - name: task
    objective: supervised
    data: {train: [{uri: "file://pairs.jsonl"}], validation: {fraction: 0.1}}
    method: {type: lora}
  evaluation:
    suites:
    - {name: words, objective: supervised, data: {uri: "file://test.jsonl"}, metrics: [perplexity]}
    gates:
    - {suite: words, metric: perplexity, minImprovement: {relative: 0.05}}
"""

BAD = """\
apiVersion: finetune.dev/v1alpha1
kind: FineTuneJob
metadata: {name: birds}
spec:
  model: {uri: "file://model", revision: 123}
  seed: -1
  seed: 3
  stages:
  - name: domain
    objective: causalLanguageModelling
    data: {train: [{uri: "file://glosses.jsonl"}]}
    method: {type: full}
    trianing: {maxSteps: 10}
    handOver: continue
  - name: task
    objective: classification
    data: {train: [{uri: "file://pairs.jsonl"}], labels: [yes, no]}
    method: {type: lora}
    handOver: merge
"""

CONFIG_MAP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: birds}\n"


def renamed(name: str) -> str:
    """The good manifest under another name."""
    return GOOD.replace("name: birds", f"name: {name}")


RUNTIME = f"""\
apiVersion: finetune.dev/v1alpha1
kind: ClusterFineTuneRuntime
metadata:
  name: torch-cuda
spec:
  image: registry.example.com/trainer@sha256:{"0" * 64}
  storage: {{claimTemplate: {{size: 100Gi}}}}
"""
