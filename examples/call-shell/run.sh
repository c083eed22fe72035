#!/bin/bash
# Calls itself through the endpoint of its own sandbox: n! is n times (n - 1)!. The command line finds
# HANSHU_ENDPOINT and HANSHU_TOKEN in the environment.
set -eu
n=$(sed 's/[^0-9]//g')
rest=1
if [ "$n" -gt 1 ]; then
  answer=$(/var/runtime/hanshu invoke "$SCF_FUNCTIONNAME" --data "{\"n\": $((n - 1))}")
  rest=$(sed 's/[^0-9]//g' <<<"$answer")
fi
echo "{\"factorial\": $((n * rest))}"
