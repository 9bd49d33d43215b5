"""LoRA's relatives: other ways to write a small update of a linear module. PEFT has them all; what differs is what the update is made of."""

from typing import Annotated, ClassVar

from pydantic import Field

from finetune_api.v1alpha1.methods.common import Alpha, Probability, Rank, Targeted


class AdaLora(Targeted):
    """AdaLoRA (Zhang et al. 2023, arXiv 2303.10512): updates as singular values and vectors, and ranks that move to where they matter.

    It begins with `initR` everywhere and prunes to `targetR` on average. The rank of each matrix and all its averages are in every checkpoint.
    A stage is refused where no multiple of `interval` lies between the two shares: all would be cut at once.
    """

    shown: ClassVar[tuple[str, ...]] = ("init_r", "target_r")

    init_r: Rank = 12
    """Rank of each update at the start. Default: 12. Example: 12"""
    target_r: Rank = 8
    """Average rank at the end; less than initR. Default: 8. Example: 8"""
    alpha: Alpha = 32
    """Scale of the update. Default: 32. Example: 32"""
    dropout: Probability = 0.0
    """Dropout on its input. Default: 0. Example: 0.05"""
    warmup_share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the steps before ranks are pruned. Default: 0.1. Example: 0.1"""
    final_share: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Share of the steps at the end in which ranks stay. Default: 0.3. Example: 0.3"""
    interval: Annotated[int, Field(ge=1, le=100_000)] = 10
    """Steps between two decisions about ranks. Default: 10. Example: 10"""
    orthogonality: Annotated[float, Field(ge=0, le=100)] = 0.5
    """Weight of the penalty that keeps singular vectors orthogonal. Default: 0.5. Example: 0.5"""


class LoHa(Targeted):
    """LoHa (Hyeon-Woo et al. 2021, arXiv 2108.06098): the update is a Hadamard product of two low-rank matrices, so that its rank may be r².

    Worth a try where LoRA's rank is the limit.
    """

    r: Rank = 8
    """Rank of each of the two factors. Default: 8. Example: 8"""
    alpha: Alpha = 8
    """Scale: alpha / r. Default: 8. Example: 8"""
    rank_dropout: Probability = 0.0
    """Dropout on ranks. Default: 0. Example: 0.05"""
    module_dropout: Probability = 0.0
    """Chance that a module's update is left out of a step. Default: 0. Example: 0.05"""


class LoKr(Targeted):
    """LoKr (Yeh et al. 2023, arXiv 2309.14859): the update is a Kronecker product of a small matrix and one of low rank.

    Smaller than LoRA at the same r.
    """

    r: Rank = 8
    """Rank. Default: 8. Example: 8"""
    alpha: Alpha = 8
    """Scale: alpha / r. Default: 8. Example: 8"""
    decompose_both: bool = False
    """Write the left factor at low rank too. Default: false. Example: true"""
    decompose_factor: Annotated[int, Field(ge=-1, le=65536)] = -1
    """Size of the left factor; -1 means nearly square. Default: -1. Example: 8"""
    rank_dropout: Probability = 0.0
    """Dropout on ranks. Default: 0. Example: 0.05"""
    module_dropout: Probability = 0.0
    """Chance that a module's update is left out of a step. Default: 0. Example: 0.05"""


class Vera(Targeted):
    """VeRA (Kopiczko et al. 2023, arXiv 2310.11454): all modules share two random matrices, and two vectors a module are trained.

    Fewer parameters than LoRA, and a higher rate. The random matrices are saved with it, so that any machine reads it alike.
    """

    r: Annotated[int, Field(ge=1, le=8192)] = 256
    """Rank of the shared matrices. Default: 256. Example: 256"""
    dropout: Probability = 0.0
    """Dropout on its input. Default: 0. Example: 0.05"""
    initial_d: Annotated[float, Field(gt=0, le=10)] = 0.1
    """Where the vectors d begin (the vectors b begin at zero). Default: 0.1. Example: 0.1"""


class Oft(Targeted):
    """OFT (Qiu et al. 2023, arXiv 2306.07280): weights are rotated in blocks, so that angles between neurons stay as they are.

    Gentle on what the model knows. The block size must divide each module's inputs. PEFT's dropout of blocks is made and never asked, so there is none.
    """

    block_size: Annotated[int, Field(ge=2, le=4096)] = 32
    """Inputs that are rotated together. Default: 32. Example: 32"""
    block_share: bool = False
    """One rotation for all blocks of a module. Default: false. Example: true"""
    coft: bool = False
    """Constrained: rotations stay near the identity. Default: false. Example: true"""
    epsilon: Annotated[float, Field(gt=0, le=1)] = 6e-5
    """How far a constrained rotation may go. Default: 6e-5. Example: 6.0e-5"""


class Boft(Targeted):
    """BOFT (Liu et al. 2023, arXiv 2311.06243): weights are rotated in blocks, as by OFT, and each output is scaled besides.

    PEFT's further butterfly factors need a kernel that is compiled on the machine, and it silently uses one where there is none: so it is always
    one here, and a result does not depend on the machine. The block size must divide each module's inputs.
    """

    block_size: Annotated[int, Field(ge=2, le=4096)] = 4
    """Inputs that a block rotates together. Default: 4. Example: 4"""
    dropout: Probability = 0.0
    """Chance that a block is left as it was. Default: 0. Example: 0.05"""


class Hra(Targeted):
    """HRA (Yuan et al. 2024, arXiv 2405.17484): weights are rotated by a chain of r Householder reflections.

    Between OFT and LoRA: orthogonal, and of low rank. The reflections are not made orthogonal to one another: PEFT begins with pairs of equal ones,
    and its Gram-Schmidt divides by nothing there (tried: the first loss is no number).
    """

    r: Rank = 8
    """Reflections, an even number: pairs of equal ones begin at the identity. Default: 8. Example: 8"""


class FourierFt(Targeted):
    """FourierFT (Gao et al. 2024, arXiv 2405.03003): the update is the inverse Fourier transform of a few trained coefficients.

    Few parameters, whatever the module's size. It wants a high rate.
    """

    n_frequency: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    """Trained coefficients a module. Default: 1000. Example: 1000"""
    scaling: Annotated[float, Field(gt=0, le=100_000)] = 150.0
    """Scale of the update. Default: 150. Example: 150"""


class C3a(Targeted):
    """C³A (Chen et al. 2024, arXiv 2407.19342): the update is cut into square blocks, each a circular convolution, which has as few numbers as a row.

    As small as a low-rank update, and of full rank. It wants a rate a thousand times LoRA's. The block size must divide each module's inputs and
    outputs; inputs times outputs over the block size are trained.
    """

    block_size: Annotated[int, Field(ge=2, le=65536)] = 64
    """Width of a block; larger means fewer trained numbers. Default: 64. Example: 64"""


class Gralora(Targeted):
    """GraLoRA (Jung et al. 2025, arXiv 2505.20355): a matrix is cut into k × k blocks, each with a low-rank update of its own.

    For high ranks, where LoRA's gradients of one block drown another's. k must divide r and each module's inputs and outputs.
    """

    shown: ClassVar[tuple[str, ...]] = ("r", "k")

    r: Rank = 32
    """Rank, shared out among the blocks of a row. Default: 32. Example: 32"""
    k: Annotated[int, Field(ge=1, le=64)] = 2
    """Granularity: blocks a side. Default: 2. Example: 2"""
    alpha: Alpha = 64
    """Scale: alpha / r. Default: 64. Example: 64"""
    dropout: Probability = 0.0
    """Dropout on its input. Default: 0. Example: 0.05"""
    hybrid_r: Annotated[int, Field(ge=0, le=1024)] = 0
    """Rank of a plain LoRA beside it. Default: 0. Example: 16"""


class AfLora(Targeted):
    """AFLoRA (Liu et al. 2024, arXiv 2403.13269): ΔW = Λb·B·Λd·A with trained vectors Λ; the matrices A and B freeze one by one.

    Each matrix gets a score from its gradients (averaged, and how much they vary), and a growing share with the lowest scores is frozen, until the
    vectors train alone. Less work towards the end, and fewer parameters to overfit. It is published as a plain LoRA, and merges as one. The scores
    are there after ten steps: a stage in which all shall be frozen by then is refused.
    """

    r: Rank = 8
    """Rank. Default: 8. Example: 8"""
    dropout: Probability = 0.0
    """Dropout on its input. Default: 0. Example: 0.05"""
    initial_d: Annotated[float, Field(gt=0, le=10)] = 0.1
    """Where the vectors d begin (the vectors b begin at zero). Default: 0.1. Example: 0.1"""
    initial_steps: Annotated[int, Field(ge=0, le=100_000_000)] | None = None
    """Steps before anything freezes. Default: one epoch. Example: 100"""
    final_share: Annotated[float, Field(ge=0, lt=1)] = 0.7
    """Share of the steps at the end in which all matrices are frozen. Default: 0.7. Example: 0.7"""
