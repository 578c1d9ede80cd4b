"""Comparison of JAX with torch, made before a graph or a padding is relied on."""

from medjax_torch.verification.graph_verification import VerificationError as VerificationError
from medjax_torch.verification.graph_verification import evaluator as evaluator
from medjax_torch.verification.graph_verification import verify as verify
from medjax_torch.verification.layer_drop_check import check_left_out as check_left_out
from medjax_torch.verification.same_results import agree as agree
