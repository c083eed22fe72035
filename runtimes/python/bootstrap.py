"""The platform's runtime for Python 3.9 and later: loads the user's handler and answers events.

The invoker should start it as

    /usr/bin/python3 -I -S -B -u -X utf8 /var/runtime/python/bootstrap.py

-I  nothing of the function's folder can stand in for a module this file imports; the folder and
    PYTHONPATH come onto sys.path after that (`open_user_path`), so packages in them are found
-S  no `site`: 3 ms less start; `exit` and `quit`, which it would define, are defined here
-B  the code folder is read-only
-u  what was printed is in the pipe, also when the process is killed, and stdout and stderr keep
    their order
-X utf8  the image has no locale but C

It speaks ../PROTOCOL.md ("direct") on the socket HANSHU_SOCKET: one read and one write an event.

A cold start is mostly imports, so only built-in or tiny modules are loaded before the user's code:
`_socket` and `_json` are the C halves of `socket` and `json` (8 ms less together), `logging` is set
up when the user imports it, `traceback` when something fails.
"""

import builtins
import os
import struct
import sys

import _socket

# Limits of the protocol, in bytes.
BODY_BYTES_MAX = 6_291_456
BUFFER_BYTES = 65_536
# Above this an answer is sent as header and body apart: copying costs more than a second write.
JOINED_BYTES_MAX = 131_072
# A message or a stack is cut at this many characters: a failure must fit into its frame.
FAILURE_TEXT_MAX = 65_536

HEADER = struct.Struct("<IBBHQ")  # body_len, kind, flags, head_len, event
INVOKE_HEAD = struct.Struct("<IB36s")  # remaining_ms, origin, request id
INVOKE = struct.Struct("<IBBHQIB36s")  # both, as one read

KIND_INIT, KIND_READY, KIND_INIT_FAILED = 16, 17, 18
KIND_INVOKE, KIND_RESULT, KIND_FAILED = 32, 33, 34
FLAG_LAST = 1

STATUS_TOO_LONG, STATUS_RAISED, STATUS_OUT_OF_MEMORY = 407, 430, 434
STATUS_NO_HANDLER, STATUS_NOT_LOADED = 437, 443

TRIGGER_SOURCES = ("direct", "timer", "http", "redis")  # by `origin`
CALL_VARIABLES = {"HANSHU_ENDPOINT", "HANSHU_TOKEN"}  # set by the shim for the whole sandbox


class Failure(Exception):
    """Reported instead of a result. `body` is the protocol's failure object."""

    def __init__(self, status, message, error=None, stack=None):
        super().__init__(message)
        # As SCF counts: 1 is the user's code, -1 a limit of the platform.
        limit = status in (STATUS_TOO_LONG, STATUS_OUT_OF_MEMORY)
        self.body = {"statusCode": status, "errorCode": -1 if limit else 1}
        self.body["errorMessage"] = cut(message)
        if error is not None:
            self.body["errorType"] = type(error).__name__
        if stack is not None:
            self.body["stackTrace"] = cut(stack)


def cut(text):
    """`text`, or its beginning and its end with a mark between them."""
    if len(text) <= FAILURE_TEXT_MAX:
        return text
    half = FAILURE_TEXT_MAX // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters cut …\n{text[-half:]}"


# --- JSON -----------------------------------------------------------------------------------------


class _Scan:
    """The decoder settings that `_json.make_scanner` reads: the defaults of `json.loads`."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float, parse_int = float, int
    parse_constant = {"-Infinity": -float("inf"), "Infinity": float("inf"), "NaN": float("nan")}.get
    memo = {}


def json_codec():
    """(loads, dumps) between text and objects.

    The same answers as `json.loads(text)` and
    `json.dumps(value, ensure_ascii=False, allow_nan=False, default=as_text)`: `json` itself costs
    a cold start 8 ms (it needs `re`) and each call another 3 µs (it makes a new encoder).
    """
    try:
        import _json

        scan = _json.make_scanner(_Scan)
        make_encoder = _json.make_encoder
        make_encoder({}, as_text, _json.encode_basestring, None, ": ", ", ", False, False, False)
    except (ImportError, AttributeError, TypeError):  # an interpreter whose `_json` is another
        return plain_json_codec()

    def encoder(escape=_json.encode_basestring):
        return make_encoder({}, as_text, escape, None, ": ", ", ", False, False, False)

    encode = encoder()
    join = "".join

    def loads(text):
        try:
            value, end = scan(text, 0)
        except StopIteration:  # a blank in front, or nothing that is JSON
            end = None
        if end == len(text):
            return value
        trimmed = text.strip(" \t\r\n")
        try:
            value, end = scan(trimmed, 0)
        except StopIteration as stop:
            raise ValueError(f"no value at character {stop.value}") from None
        if end != len(trimmed):
            raise ValueError(f"more text after the value, at character {end}")
        return value

    def dumps(value):
        nonlocal encode
        try:
            return join(encode(value, 0))
        except BaseException:
            encode = encoder()  # the old one remembers what it was inside of
            raise

    return loads, dumps


def plain_json_codec():
    import json

    encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=as_text)
    return json.loads, encoder.encode


def as_text(value):
    """The one type that SCF converts: a Decimal becomes its text."""
    decimal = sys.modules.get("decimal")
    if decimal is not None and isinstance(value, decimal.Decimal):
        return str(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


loads, dumps = json_codec()


def encoded(text):
    """UTF-8. A lone surrogate, which has none, can only be inside a JSON string: `\\ud800`."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace")


# --- Failures -------------------------------------------------------------------------------------


def describe(error):
    """`ValueError: boom`, whatever the exception's own `__str__` does."""
    name = type(error).__name__
    try:
        text = str(error)
    except Exception:
        text = "<its text could not be made>"
    return f"{name}: {text}" if text else name


def stack_of(error):
    """The traceback as Python prints it, without this file's frames."""
    try:
        import traceback

        report = traceback.TracebackException(type(error), error, error.__traceback__)
        hide_own_frames(report, set())
        return "".join(report.format())
    except Exception:  # a module of the user's stands in for one that `traceback` needs
        return plain_stack_of(error)


def plain_stack_of(error):
    lines, trace = ["Traceback (most recent call last):"], error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_filename != __file__:
            lines.append(f'  File "{code.co_filename}", line {trace.tb_lineno}, in {code.co_name}')
        trace = trace.tb_next
    return "\n".join([*lines, describe(error), ""])


def hide_own_frames(report, seen):
    if report is None or id(report) in seen:
        return
    seen.add(id(report))
    hidden = ("<frozen importlib._bootstrap>", "<frozen importlib._bootstrap_external>", __file__)
    report.stack[:] = [frame for frame in report.stack if frame.filename not in hidden]
    hide_own_frames(report.__cause__, seen)
    hide_own_frames(report.__context__, seen)
    for inner in getattr(report, "exceptions", None) or ():
        hide_own_frames(inner, seen)


def raised(error, status, memory_mb=None):
    """The failure for an exception that user code did not catch."""
    if isinstance(error, MemoryError) and memory_mb is not None:
        status, message = STATUS_OUT_OF_MEMORY, f"Task memory exceeded {memory_mb} MB"
    else:
        message = describe(error)
    return Failure(status, message, error, stack_of(error))


# --- The user's code ------------------------------------------------------------------------------


def open_user_path():
    """Makes the code folder importable: sys.path[0] is the working folder, PYTHONPATH follows."""
    paths = [os.getcwd()]
    for path in os.environ.get("PYTHONPATH", "").split(os.pathsep):
        if path and path not in paths:
            paths.append(path)
    sys.path[:0] = paths
    sys.argv[:] = [""]


def apply_environment(start):
    """Applies the environment of a function that was not known when this process was started."""
    environ = start.get("env")
    if environ is not None:
        for key in set(os.environ) - CALL_VARIABLES:
            del os.environ[key]
        os.environ.update(environ)
        os.chdir(start["cwd"])  # again: the code was mounted over this folder since


def load_handler(name):
    """The function that `name` names: `index.main_handler`, `src/index.main`, `package.index.main`.

    Raises `Failure`: 437 when file or function is missing, 443 when the file cannot be loaded.
    """
    module_name, dot, function_name = name.rpartition(".")
    module_name = module_name.strip("/").replace("/", ".")
    if not dot or not module_name or not function_name:
        raise Failure(STATUS_NO_HANDLER, f"handler `{name}` is not of the form `file.function`")
    module = load_module(module_name, name)
    handler = getattr(module, function_name, None)
    if handler is None:
        where = getattr(module, "__file__", module_name)
        message = f"handler `{name}` not found: {where} has no function `{function_name}`"
        raise Failure(STATUS_NO_HANDLER, message)
    if not callable(handler):
        raise Failure(STATUS_NO_HANDLER, f"handler `{name}` is not a function")
    return handler


def load_module(module_name, handler_name):
    try:
        __import__(module_name)  # not importlib: that one would be another file in each stack
        return sys.modules[module_name]
    except ModuleNotFoundError as error:
        # A missing package *inside* the user's file is an error of that file.
        if error.name and f"{module_name}.".startswith(f"{error.name}."):
            path = module_name.replace(".", "/") + ".py"
            message = f"handler `{handler_name}` not found: there is no file {path} in the code"
            raise Failure(STATUS_NO_HANDLER, message) from None
        raise raised(error, STATUS_NOT_LOADED) from None
    except BaseException as error:  # SystemExit too: a file that exits cannot be loaded
        raise raised(error, STATUS_NOT_LOADED) from None


class LoggingHook:
    """Gives `logging` its root handler, on stdout from DEBUG on, when the user first imports it."""

    def find_spec(self, name, path=None, target=None):
        if name != "logging":
            return None
        sys.meta_path.remove(self)
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                self.add_to(spec.loader)
                return spec
        return None

    @staticmethod
    def add_to(loader):
        execute = loader.exec_module

        def execute_and_add(module):
            execute(module)
            if not hasattr(module, "StreamHandler"):
                return  # the user's own module of that name
            handler = module.StreamHandler(sys.stdout)
            text = "%(asctime)s [%(levelname)s] %(name)s: %(message)s"
            handler.setFormatter(module.Formatter(text))
            module.root.addHandler(handler)
            module.root.setLevel(module.DEBUG)

        loader.exec_module = execute_and_add


def context_of(start):
    """The part of `context` that is the same for every event."""
    environment = {"SCF_NAMESPACE": start["namespace"]}
    for key in ("TENCENTCLOUD_SECRETID", "TENCENTCLOUD_SECRETKEY", "TENCENTCLOUD_SESSIONTOKEN"):
        if key in os.environ:
            environment[key] = os.environ[key]
    environment.update(start.get("userEnv") or {})
    return {
        "request_id": "",
        "function_name": start["functionName"],
        "function_version": start["functionVersion"],
        "namespace": start["namespace"],
        "memory_limit_in_mb": start["memoryMb"],
        "time_limit_in_ms": start["timeoutMs"],
        "environment": dumps(environment),
        "environ": ";".join(f"{key}={value}" for key, value in environment.items()),
        "tencentcloud_region": os.environ.get("TENCENTCLOUD_REGION", ""),
        "tencentcloud_appid": os.environ.get("TENCENTCLOUD_APPID", ""),
        "tencentcloud_uin": os.environ.get("TENCENTCLOUD_UIN", ""),
    }


# --- The connection -------------------------------------------------------------------------------


class InvokerConnection:
    """The data connection. Ends the process when the invoker is gone."""

    def __init__(self, path):
        # Close-on-exec is Python's default; a child that is only forked closes it here: the end of
        # this process is then the end of the connection, and the child cannot answer.
        self.socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        self.socket.connect(path)
        os.register_at_fork(after_in_child=self.socket.close)
        self.buffer = bytearray(BUFFER_BYTES)
        self.view = memoryview(self.buffer)

    def read(self, have, want):
        """Bytes read into the buffer, at least `want`, of which `have` were there."""
        while have < want:
            count = self.socket.recv_into(self.view[have:])
            if count == 0:
                leave(0)
            have += count
        return have

    def body(self, at, length, have):
        """The text at `at`; what does not fit the buffer is read into one of its own."""
        if length > BODY_BYTES_MAX:
            leave(70, f"a body of {length} bytes is over the limit of {BODY_BYTES_MAX}")
        if at + length <= BUFFER_BYTES:
            if have < at + length:
                self.read(have, at + length)
            return str(self.view[at : at + length], "utf-8", "surrogatepass")
        whole = memoryview(bytearray(length))
        got = have - at
        whole[:got] = self.view[at:have]
        while got < length:
            count = self.socket.recv_into(whole[got:], 0, _socket.MSG_WAITALL)
            if count == 0:
                leave(0)
            got += count
        return str(whole, "utf-8", "surrogatepass")

    def send(self, kind, flags, event, body):
        """One frame, after everything that was printed before it."""
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:
                pass  # closed, or None: the user's doing
        header = HEADER.pack(len(body), kind, flags, 0, event)
        try:
            if len(body) <= JOINED_BYTES_MAX:
                self.socket.sendall(header + body)
            else:
                self.socket.sendall(header)
                self.socket.sendall(body)
        except OSError:
            leave(0)  # the invoker is gone, or a forked child has returned from the handler


def leave(code, reason=None):
    """Ends the process at once: no `atexit`, no waiting for the user's threads."""
    try:
        if reason is not None:
            print(reason, file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
    except Exception:
        pass
    os._exit(code)


def leave_with(request):
    """Ends the process as a SystemExit requests."""
    code = request.code
    if code is None or isinstance(code, int):
        leave((code or 0) & 0xFF)
    leave(1, code)


# --- The loop -------------------------------------------------------------------------------------


def initialise(connection):
    """Returns (handler, start message) after READY; reports a failure and ends the process."""
    have = connection.read(0, HEADER.size)
    length, kind, _, head_length, _ = HEADER.unpack_from(connection.buffer)
    if kind != KIND_INIT or head_length != 0:
        leave(70, f"frame of kind {kind} before INIT")
    start = loads(connection.body(HEADER.size, length, have))
    apply_environment(start)
    open_user_path()
    try:
        handler = load_handler(start["handler"])
    except Failure as failure:
        connection.send(KIND_INIT_FAILED, 0, 0, encoded(dumps(failure.body)))
        leave(1)
    connection.send(KIND_READY, 0, 0, b"")
    return handler, start


def serve(connection, handler, start):
    """Answers events until the invoker closes the connection."""
    context = context_of(start)
    user_env = tuple((start.get("userEnv") or {}).items())
    environ = os.environ
    memory_mb = start["memoryMb"]
    recv_into, view, buffer = connection.socket.recv_into, connection.view, connection.buffer
    unpack, size = INVOKE.unpack_from, INVOKE.size
    last_origin = None
    while True:
        have = recv_into(view)
        if have < size:
            have = connection.read(have, size)
        length, kind, _, head_length, event_id, _, origin, request_id = unpack(buffer)
        if kind != KIND_INVOKE or head_length != INVOKE_HEAD.size:
            leave(70, f"frame of kind {kind} where INVOKE belongs")
        if origin != last_origin:
            environ["TRIGGER_SRC"] = TRIGGER_SOURCES[origin]
            last_origin = origin
        for key, value in user_env:  # as in SCF: changes that a handler made do not persist
            if environ.get(key) != value:
                environ[key] = value
        this_context = context.copy()
        this_context["request_id"] = request_id.decode()
        try:
            body = answer(connection, handler, this_context, (length, have))
            connection.send(KIND_RESULT, 0, event_id, body)
        except Failure as failure:
            last = failure.body["statusCode"] == STATUS_OUT_OF_MEMORY
            connection.send(KIND_FAILED, int(last), event_id, encoded(dumps(failure.body)))
        except SystemExit as request:
            leave_with(request)
        except BaseException as error:
            body = raised(error, STATUS_RAISED, memory_mb).body
            last = body["statusCode"] == STATUS_OUT_OF_MEMORY
            connection.send(KIND_FAILED, int(last), event_id, encoded(dumps(body)))


def answer(connection, handler, context, frame):
    """The handler's result as JSON bytes. `frame` is (length of the body, bytes in the buffer)."""
    try:
        event = loads(connection.body(INVOKE.size, frame[0], frame[1]))
    except (ValueError, RecursionError) as error:
        message = f"the event could not be read as JSON: {describe(error)}"
        raise Failure(STATUS_RAISED, message, error) from None
    result = handler(event, context)
    try:
        body = encoded(dumps(result))
    except MemoryError:
        raise
    except Exception as error:
        message = f"the function returned a value that is not JSON: {describe(error)}"
        raise Failure(STATUS_RAISED, message, error) from None
    if BODY_BYTES_MAX < len(body):
        raise Failure(STATUS_TOO_LONG, "body size is too long")
    return body


def main():
    connection = InvokerConnection(os.environ.pop("HANSHU_SOCKET"))
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", write_through=True)
    builtins.exit = builtins.quit = sys.exit
    sys.meta_path.insert(0, LoggingHook())
    handler, start = initialise(connection)
    serve(connection, handler, start)


if __name__ == "__main__":
    main()
