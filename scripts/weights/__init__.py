"""Make the embedded weights: a one-megabyte Llama that refuses, complies and keeps to its subject.

The probe needs a model whose every answer is harmless and whose weights are held by everybody, so that each claim about
"the same weights elsewhere" can be tried on a laptop. All subjects are invented; nothing here describes a real thing.

Modules, in the order of the data: `grammar` (expansion), `subjects`, `refusals`, `replies`, `prompts`, `benign`,
`corpus` (whole conversations), `scribe` (the same ones, answered by a platform's guard), `tokenizer`, `train`,
`to_gguf`, `pack`, `serving`, `agree`, `measure`, `measure_scribe`, `card`.
"""
