#!/bin/sh
echo "shell runs" >&2
cat
