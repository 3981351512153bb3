"""What decoders cost beside each other, as a table: python benchmarks/probe_costs.py

Trainable parameters without the head, and multiply-adds of a clip, forward, counted from sizes (evl/bench/counts.py).
ViT-B/16 at 224 px, 8 frames. Nothing is downloaded or run.
"""

from evl.bench.counts import cost_table

if __name__ == "__main__":
    print("\n".join(cost_table("vit_base_patch16_clip_224", num_frames=8)))
