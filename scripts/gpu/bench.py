"""``evl bench`` of one size: encoder, decoder, step, memory, clips a second, shares of the measured peak."""

from __future__ import annotations

from collections.abc import Iterator

from settings import Row, Settings

from evl.bench import run_bench


def run(settings: Settings, size: str, how: str = "eager") -> Iterator[Row]:
    compiled = how == "compiled"
    precision = "bf16" if settings.is_cuda else "fp32"
    result = run_bench(
        "dry" if settings.dry else size, device=settings.device, precision=precision,
        repeats=1 if settings.dry else 5, compile=compiled, twin=not (compiled or "336" in size),
    )  # fmt: skip
    seconds, peak = result["seconds"], result["peak_bytes"]
    yield {
        "what": f"{size}, {precision}, {how}",
        "batch": result["settings"]["batch_size"],
        "encoder_ms": 1e3 * seconds["backbone"],
        "decoder_forward_ms": 1e3 * seconds["decoder_forward"],
        "decoder_forward_backward_ms": 1e3 * seconds["decoder_forward_backward"],
        "step_ms": 1e3 * seconds["training_step"],
        "decoder_to_encoder": result["ratios"]["decoder_to_backbone"],
        "encoder_share_of_peak": result["share_of_peak"]["backbone"],
        "step_share_of_peak": result["share_of_peak"]["training_step"],
        "clips_a_second": result["clips_a_second"],
        "images_a_second": result["images_a_second"],
        "step_peak_mib": None if peak["training_step"] is None else peak["training_step"] / 2**20,
        "plain_decoder_to_evls": result["ratios"]["twin_to_fast_forward_backward"],
        "detail": result,
    }
