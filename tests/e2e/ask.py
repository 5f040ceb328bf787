"""Asks a model a question: ask.py FOLDER QUESTION. Prints the answer alone."""

import sys

from transformers import AutoModelForCausalLM, AutoTokenizer

folder, question = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
inputs = tokenizer(question, return_tensors="pt")
length = inputs["input_ids"].shape[1]
output = model.generate(**inputs, max_new_tokens=16, do_sample=False)
print(tokenizer.decode(output[0][length:], skip_special_tokens=True))
