"""Plays the invoker to bootstrap.py over a real Unix socket.

    /usr/bin/python3 -m unittest -v test_bootstrap        (in this folder)
"""

import json
import os
import select
import signal
import struct
import subprocess
import tempfile
import textwrap
import time
import unittest

from fake_invoker import (
    BODY_BYTES_MAX,
    CALL_VARIABLES,
    ECHO,
    Ended,
    FAILED,
    INIT_FAILED,
    INVOKE,
    LAST,
    READY,
    REQUEST_ID,
    RESULT,
    Sandbox,
    WAIT_S,
    sandbox,
)


class Results(unittest.TestCase):
    def test_every_json_kind_comes_back(self):
        values = [None, True, False, 0, -1, 2**70, 1.5, 1e300, "", "text", [], [1, [2]], {}]
        values += [{"a": {"b": [None]}}, "中文 🎈 é", "nul \0 inside", '"\\\n\t\x1f\u2028', {"": ""}]
        with sandbox(ECHO) as box:
            self.assertEqual(box.first[0], READY)
            for value in values:
                self.assertEqual(box.invoke(value), value)

    def test_non_ascii_is_not_escaped_and_spacing_is_that_of_json_dumps(self):
        with sandbox(ECHO) as box:
            _, _, text = box.invoke_raw('{"a":1,"b":["é",2]}'.encode())
            self.assertEqual(text, '{"a": 1, "b": ["é", 2]}'.encode())

    def test_blanks_around_the_event_are_allowed(self):
        with sandbox(ECHO) as box:
            self.assertEqual(box.invoke_raw(b' \n {"a":1}\r\n')[2], b'{"a": 1}')

    def test_lone_surrogates_survive_as_escapes(self):
        with sandbox(ECHO) as box:
            for text in (rb'"\ud800"', rb'["a\udfffb", "\ude00\ud83d"]', rb'{"\ud800": 1}'):
                self.assertEqual(box.invoke_raw(text)[2], text)
            self.assertEqual(box.invoke_raw(b'"\xed\xa0\x80"')[2], rb'"\ud800"')

    def test_six_megabytes_pass_both_ways_and_one_byte_more_is_407(self):
        code = """
            def main_handler(event, context):
                return event if isinstance(event, str) else "x" * (event - 2)
        """
        with sandbox(code) as box:
            text = b'"' + b"x" * (BODY_BYTES_MAX - 2) + b'"'
            self.assertEqual(box.invoke_raw(text)[2], text)
            self.assertEqual(len(box.invoke_raw(b"%d" % BODY_BYTES_MAX)[2]), BODY_BYTES_MAX)
            failure = box.fail(BODY_BYTES_MAX + 1)
            self.assertEqual(failure["statusCode"], 407)
            self.assertEqual(failure["errorMessage"], "body size is too long")
            self.assertEqual(box.invoke("still"), "still")

    def test_bodies_around_the_buffer_size_arrive_whole(self):
        with sandbox(ECHO) as box:
            for length in range(65536 - 60, 65536 + 3):
                text = b'"' + b"y" * (length - 2) + b'"'
                self.assertEqual(box.invoke_raw(text)[2], text)

    def test_a_frame_in_single_bytes_is_one_event(self):
        with sandbox(ECHO) as box:
            head = struct.pack("<IB", 3000, 0) + REQUEST_ID.encode()
            for byte in struct.pack("<IBBHQ", 3, INVOKE, 0, len(head), 5) + head + b"[7]":
                box.line.sendall(bytes([byte]))
                time.sleep(0.001)
            self.assertEqual(box.receive(), (RESULT, 0, 5, b"[7]"))

    def test_a_decimal_becomes_its_text(self):
        code = """
            from decimal import Decimal
            def main_handler(event, context):
                return {"d": Decimal("1.10")}
        """
        with sandbox(code) as box:
            self.assertEqual(box.invoke(None), {"d": "1.10"})

    def test_globals_are_kept(self):
        code = """
            count = 0
            def main_handler(event, context):
                global count
                count += 1
                return count
        """
        with sandbox(code) as box:
            self.assertEqual([box.invoke(None) for _ in range(3)], [1, 2, 3])


class Surroundings(unittest.TestCase):
    def test_context_has_every_key(self):
        code = """
            import os
            def main_handler(event, context):
                return [context, os.environ.get("TRIGGER_SRC"), os.getcwd(), os.environ["A"]]
        """
        with sandbox(code, userEnv={"A": "b;c"}, memoryMb=256) as box:
            context, source, cwd, a = box.invoke(None, origin=1)
            environment = json.loads(context.pop("environment"))
            self.assertEqual(environment, {"SCF_NAMESPACE": "default", "A": "b;c"})
            self.assertEqual(context, {
                "request_id": REQUEST_ID, "function_name": "f", "function_version": "$LATEST",
                "namespace": "default", "memory_limit_in_mb": 256, "time_limit_in_ms": 3000,
                "environ": "SCF_NAMESPACE=default;A=b;c", "tencentcloud_region": "ap-test",
                "tencentcloud_appid": "", "tencentcloud_uin": "",
            })
            self.assertEqual((source, cwd, a), ("timer", box.code, "b;c"))
            self.assertEqual([box.invoke(None, origin=o)[1] for o in (0, 2, 3)],
                             ["direct", "http", "redis"])

    def test_what_a_handler_did_to_its_variables_does_not_last(self):
        code = """
            import os
            def main_handler(event, context):
                before = os.environ["A"]
                os.environ["A"] = "changed"
                return before
        """
        with sandbox(code, userEnv={"A": "b"}) as box:
            self.assertEqual([box.invoke(None), box.invoke(None)], ["b", "b"])

    def test_a_prewarmed_process_gets_environment_and_folder_of_its_function(self):
        code = """
            import os
            seen = dict(os.environ), os.getcwd()
            def main_handler(event, context):
                environ, cwd = seen
                return [environ, cwd, os.getenv("TENCENTCLOUD_REGION"), context["environment"]]
        """
        env = {"OWN": "x", "PYTHONPATH": "/nowhere"}
        late = {"env": env, "cwd": "/tmp", "userEnv": {"OWN": "x"}}
        with Sandbox({"index.py": code}, **late) as box:
            # The folder that it began in was another: nothing is found there any more.
            self.assertEqual(box.first[0], INIT_FAILED)
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "index.py"), "w", encoding="utf-8") as file:
                file.write(textwrap.dedent(code))
            with Sandbox({"other.py": ""}, **{**late, "cwd": folder}) as box:
                environ, cwd, region, own = box.invoke({})
        environ.pop("TRIGGER_SRC", None)
        # The call endpoint is the sandbox's and stays.
        self.assertEqual((environ, cwd), ({**env, **CALL_VARIABLES}, folder))
        self.assertIsNone(region, "what it was started with is gone")
        self.assertEqual(json.loads(own)["OWN"], "x")

    def test_handlers_in_folders_and_packages_are_found(self):
        files = {
            "src/index.py": "from helper import text\ndef main(e, c): return text",
            "helper.py": "text = 'helped'",
            "pkg/__init__.py": "",
            "pkg/mod.py": "from . import other\ndef main(e, c): return other.text",
            "pkg/other.py": "text = 'relative'",
        }
        for handler, answer in (("src/index.main", "helped"), ("pkg.mod.main", "relative")):
            with Sandbox(files, handler) as box:
                self.assertEqual(box.invoke(None), answer)

    def test_the_code_folder_is_first_on_the_path_and_pythonpath_follows(self):
        code = """
            import sys
            def main_handler(event, context):
                return [sys.path[:3], [p for p in sys.path if "runtimes" in p], sys.argv]
        """
        with sandbox(code) as box:
            path, ours, argv = box.invoke(None)
            self.assertEqual(path[:2], [box.code, f"{box.root}/opt"])
            self.assertIn("/lib/python", path[2])
            self.assertEqual((ours, argv), ([], [""]))

    def test_modules_of_the_user_cannot_stand_in_for_ours(self):
        bad = "raise RuntimeError('not this one')"
        names = ("struct", "_json", "json", "traceback", "logging", "socket", "enum", "re")
        files = {f"{name}.py": bad for name in names}
        files["index.py"] = ECHO + "    def fail(e, c): raise ValueError('boom')\n"
        with Sandbox(files) as box:
            self.assertEqual(box.invoke([1]), [1])
            self.assertEqual(box.invoke_raw(b" 1 ")[2], b"1")
        with Sandbox(files, "index.fail") as box:
            failure = box.fail()
            self.assertEqual(failure["errorMessage"], "ValueError: boom")
            self.assertIn("index.py", failure["stackTrace"])

    def test_the_socket_cannot_be_found_by_name_and_is_not_inherited(self):
        code = """
            import os, subprocess
            def main_handler(event, context):
                sockets = "ls -l /proc/self/fd | grep -c socket; true"
                found = subprocess.run(["sh", "-c", sockets], capture_output=True, text=True)
                return [os.environ.get("HANSHU_SOCKET"), found.stdout.strip()]
        """
        with sandbox(code) as box:
            self.assertEqual(box.invoke(None), [None, "0"])

    def test_start_needs_no_large_module(self):
        code = """
            import sys
            def main_handler(event, context):
                return sorted(sys.modules)
        """
        with sandbox(code) as box:
            loaded = box.invoke(None)
            for name in ("re", "json", "socket", "logging", "traceback", "enum", "threading"):
                self.assertNotIn(name, loaded)

    def test_exit_and_quit_are_there(self):
        code = "def main_handler(e, c): return [callable(exit), callable(quit)]"
        with sandbox(code) as box:
            self.assertEqual(box.invoke(None), [True, True])


class Failures(unittest.TestCase):
    def test_an_exception_is_430_with_the_users_lines_alone(self):
        code = """
            def inner():
                raise ValueError("boom")
            def main_handler(event, context):
                inner()
        """
        with sandbox(code) as box:
            failure = box.fail()
            stack = failure.pop("stackTrace")
            self.assertEqual(failure, {"statusCode": 430, "errorCode": 1,
                                       "errorMessage": "ValueError: boom",
                                       "errorType": "ValueError"})
            self.assertTrue(stack.startswith("Traceback (most recent call last):\n"))
            self.assertIn(f'File "{box.code}/index.py", line 5, in main_handler', stack)
            self.assertIn('raise ValueError("boom")', stack)
            self.assertTrue(stack.endswith("ValueError: boom\n"))
            self.assertNotIn("bootstrap", stack)
            self.assertEqual(box.fail()["statusCode"], 430)

    def test_causes_are_in_the_stack_without_our_frames(self):
        code = """
            def main_handler(event, context):
                try:
                    {}["missing"]
                except KeyError as error:
                    raise RuntimeError("outer") from error
        """
        with sandbox(code) as box:
            stack = box.fail()["stackTrace"]
            self.assertIn("KeyError: 'missing'", stack)
            self.assertIn("direct cause", stack)
            self.assertNotIn("bootstrap", stack)

    def test_wrong_arguments_are_told_without_our_frames(self):
        with sandbox("def main_handler(event): return 1") as box:
            failure = box.fail()
            self.assertIn("takes 1 positional argument", failure["errorMessage"])
            self.assertNotIn("bootstrap", failure["stackTrace"])

    def test_what_is_not_json_is_430_and_the_message_says_so(self):
        code = """
            def main_handler(event, context):
                circle = []
                circle.append(circle)
                values = {"set": {1}, "bytes": b"x", "nan": float("nan"), "inf": [float("inf")],
                          "circle": circle, "key": {(1, 2): 3}, "object": object(), "ok": 1}
                return values[event]
        """
        with sandbox(code) as box:
            for name in ("set", "bytes", "nan", "inf", "circle", "key", "object"):
                failure = box.fail(name)
                self.assertEqual(failure["statusCode"], 430, name)
                self.assertIn("returned a value that is not JSON", failure["errorMessage"])
                self.assertEqual(box.invoke("ok"), 1)

    def test_a_message_with_lone_surrogates_or_without_text_is_told(self):
        code = r"""
            class Odd(Exception):
                def __str__(self):
                    raise ValueError
            def main_handler(event, context):
                print("\ud800 printed")
                raise Odd() if event else ValueError("\ud800")
        """
        with sandbox(code) as box:
            self.assertEqual(box.fail(0)["errorMessage"], "ValueError: \ud800")
            self.assertIn("Odd", box.fail(1)["errorMessage"])
            self.assertIn(b"\\ud800 printed", box.log())

    def test_a_giant_message_is_cut(self):
        with sandbox("def main_handler(e, c): raise ValueError('x' * 10_000_000)") as box:
            failure = box.fail()
            self.assertLess(len(failure["errorMessage"]), 70_000)
            self.assertIn("characters cut", failure["errorMessage"])

    def test_an_event_too_deep_to_read_is_a_failure(self):
        with sandbox(ECHO) as box:
            kind, _, text = box.invoke_raw(b"[" * 100_000 + b"]" * 100_000)
            self.assertEqual(kind, FAILED)
            self.assertIn("could not be read", json.loads(text)["errorMessage"])
            self.assertEqual(box.invoke(1), 1)

    def test_memory_that_cannot_be_had_is_434_and_the_last_answer(self):
        with sandbox("def main_handler(e, c): return bytearray(10**15)") as box:
            kind, flags, text = box.invoke_raw(b"1")
            self.assertEqual((kind, flags), (FAILED, LAST))
            failure = json.loads(text)
            self.assertEqual(failure["statusCode"], 434)
            self.assertEqual(failure["errorMessage"], "Task memory exceeded 128 MB")


class Initialisation(unittest.TestCase):
    def failure(self, files, handler="index.main_handler"):
        with Sandbox(files, handler) as box:
            kind, _, event, body = box.first
            self.assertEqual((kind, event), (INIT_FAILED, 0))
            with self.assertRaises(Ended):
                box.receive()
            return json.loads(body)

    def test_an_import_error_is_443_with_a_stack(self):
        failure = self.failure({"index.py": "import os\nimport no_such_module\n"})
        self.assertEqual((failure["statusCode"], failure["errorCode"]), (443, 1))
        self.assertIn("no_such_module", failure["errorMessage"])
        self.assertIn("index.py\", line 2", failure["stackTrace"])
        self.assertNotIn("bootstrap", failure["stackTrace"])

    def test_an_exception_in_the_file_is_443(self):
        failure = self.failure({"index.py": "1 / 0"})
        self.assertEqual(failure["statusCode"], 443)
        self.assertEqual(failure["errorMessage"], "ZeroDivisionError: division by zero")

    def test_a_syntax_error_is_443_and_names_the_line(self):
        failure = self.failure({"index.py": "def main_handler(:\n  pass\n"})
        self.assertEqual((failure["statusCode"], failure["errorType"]), (443, "SyntaxError"))
        self.assertIn("index.py\", line 1", failure["stackTrace"])

    def test_a_file_that_exits_is_443(self):
        failure = self.failure({"index.py": "import sys; sys.exit(3)"})
        self.assertEqual(failure["statusCode"], 443)
        self.assertIn("SystemExit", failure["errorMessage"])

    def test_a_missing_file_function_or_name_is_437(self):
        files = {"index.py": "value = 1", "src/a.py": ""}
        handlers = ("other.main", "index.main", "index.value", "main_handler", "src/b.main", ".x")
        for handler in handlers:
            failure = self.failure(files, handler)
            self.assertEqual(failure["statusCode"], 437, handler)
            self.assertIn(handler, failure["errorMessage"])


class Output(unittest.TestCase):
    def test_both_streams_keep_their_order_and_come_before_the_answer(self):
        code = """
            import sys, os
            def main_handler(event, context):
                for n in range(50):
                    sys.stdout.write(f"o{n} ")
                    sys.stderr.write(f"e{n} ")
                os.write(1, b"\\xff\\xfe raw\\n")
                sys.stdout.buffer.write(b"bytes ")
                print("end", end="")
        """
        with sandbox(code) as box:
            box.invoke(None)
            expected = "".join(f"o{n} e{n} " for n in range(50)).encode()
            self.assertEqual(box.log(), expected + b"\xff\xfe raw\nbytes end")

    def test_the_root_logger_prints_to_stdout_from_debug_on(self):
        code = """
            import logging
            logging.debug("while loading")
            def main_handler(event, context):
                logging.getLogger("mine").debug("in %s", "handler")
                logging.info("once")
                return [logging.root.level, len(logging.root.handlers)]
        """
        with sandbox(code) as box:
            self.assertEqual(box.invoke(None), [10, 1])
            log = box.log()
            self.assertIn(b"[DEBUG] root: while loading", log)
            self.assertIn(b"[DEBUG] mine: in handler", log)
            self.assertEqual(log.count(b"once"), 1)

    def test_a_handler_that_closed_its_streams_still_answers(self):
        code = """
            import sys
            def main_handler(event, context):
                sys.stdout.close(); sys.stderr = None
                return 1
        """
        with sandbox(code) as box:
            self.assertEqual([box.invoke(None), box.invoke(None)], [1, 1])


class Ends(unittest.TestCase):
    def ends(self, code, status):
        with sandbox(code) as box:
            began = time.monotonic()
            box.start_event(b"1")
            with self.assertRaises(Ended):
                box.receive()
            self.assertEqual(box.process.wait(WAIT_S), status)
            self.assertLess(time.monotonic() - began, 1)
            return box.log()

    def test_exit_ends_the_process_even_with_a_thread_that_runs(self):
        code = """
            import sys, threading, time
            def main_handler(event, context):
                threading.Thread(target=time.sleep, args=(60,)).start()
                print("last words", end="")
                sys.exit(3)
        """
        self.assertEqual(self.ends(code, 3), b"last words")

    def test_exit_with_a_text_prints_it(self):
        self.assertEqual(self.ends("def main_handler(e, c): exit('why')", 1), b"why\n")

    def test_a_crash_ends_the_connection(self):
        code = "import os\ndef main_handler(e, c): print('x', end=''); os.kill(os.getpid(), 11)"
        self.assertEqual(self.ends(code, -signal.SIGSEGV), b"x")

    def test_a_forked_child_neither_answers_nor_holds_the_connection(self):
        code = """
            import os, time
            def main_handler(event, context):
                if event == "stay":
                    if os.fork() == 0:
                        time.sleep(60)
                    os._exit(5)
                return os.getpid(), os.fork() == 0
        """
        with sandbox(code) as box:
            pid, child = box.invoke("both return")
            self.assertEqual((pid, child), (box.process.pid, False))
            time.sleep(0.2)
            self.assertEqual(select.select([box.line], [], [], 0)[0], [])
            box.start_event(b'"stay"')
            with self.assertRaises(Ended):
                box.receive()

    def test_the_end_of_the_connection_is_the_end_of_the_process(self):
        with sandbox(ECHO) as box:
            box.line.close()
            self.assertEqual(box.process.wait(WAIT_S), 0)


if __name__ == "__main__":
    unittest.main()
