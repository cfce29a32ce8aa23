"""What the workflow must know of the section ``finetune`` while it plans; imports nothing heavy."""

# Options that change no weights: another value neither reruns the stage nor starts training afresh
WITHOUT_EFFECT = frozenset(
    {"checkpoint_every_steps", "save_total_limit", "report_to", "num_gpus", "num_nodes", "sweep", "data_curve"}
)
