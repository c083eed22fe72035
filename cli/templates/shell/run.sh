#!/bin/bash
# The event is standard input, standard output the answer, standard error the log.
set -eu
event=$(cat)
echo "got ${#event} bytes" >&2
echo "{\"message\": \"$GREETING, shell!\"}"
