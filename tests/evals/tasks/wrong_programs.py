"""Programs that do not solve their problem, and would like to be graded right.

The problems: print the sum of two numbers; `top(nums, k)`, the k largest in falling
order; `sum_of(a, b)`, called by assertions.
"""

STDIN = {
    "one case": "print(3)",
    "both outputs": "print(3)\nprint(30)",
    "output with more": "print(sum(map(int, input().split())), 'is the sum')",
    "difference": "a, b = map(int, input().split())\nprint(b - a)",
    "echo": "print(input())",
    "nothing": "input()",
    "rounded": "print(round(sum(map(int, input().split())), -1))",
    "right, then a crash": "print(sum(map(int, input().split())))\n1 / 0",
    "right, then killed": "print(sum(map(int, input().split())), flush=True)\n"
    "import os; os.kill(os.getpid(), 9)",
    "right, then for ever": "print(sum(map(int, input().split())), flush=True)\n"
    "while True: pass",
    "right on stderr": "import sys\nprint(sum(map(int, input().split())), "
    "file=sys.stderr)",
    "exit code 0": "import os\nos._exit(0)",
    "all numbers": "for i in range(100): print(i)",
    "not a number": "print('nan')",
    "infinite": "print('inf')",
    "nearly": "print(sum(map(int, input().split())) + 1e-9)",
    "almost, as a float": "print(sum(map(int, input().split())) * 1.0000001)",
    "in words": "print({3: 'three', 30: 'thirty'}[sum(map(int, input().split()))])",
    "in a list": "print([sum(map(int, input().split()))])",
    "spread over lines": "for c in str(sum(map(int, input().split())) + 0): print(c)\n"
    "print()",
    "in base 16": "print(hex(sum(map(int, input().split()))))",
    "rewritten input": "import os\nos.write(0, b'3')\nprint(input())",
    "prints nothing but bytes": "import os\nos.write(1, b'\\xff\\xfe3')",
    "files that look like it": "import glob\n"
    "for p in glob.glob('/tmp/*') + glob.glob('*'):\n  print(open(p).read())",
}
FUNCTIONAL = {
    "constant": "def top(nums, k): return [3, 2]",
    "equal to everything": "class A(list):\n  def __eq__(s, o): return True\n"
    "  def __ne__(s, o): return False\ndef top(nums, k): return A()",
    "says it is a list": "class A(list):\n  def __repr__(s): return '[3, 2]'\n"
    "  def __iter__(s): return iter([3, 2])\ndef top(nums, k): return A()",
    "encoder": "import json\njson.JSONEncoder.encode = lambda s, o: '[3, 2]'\n"
    "def top(nums, k): return []",
    "writes": "import os\ndef top(nums, k):\n  for i in range(99):\n"
    "    try: os.write(i, b'[3, 2]')\n    except OSError: pass\n  os._exit(0)",
    "nonce": "import sys, os\ndef top(nums, k):\n  f = sys._getframe(1)\n"
    "  os.write(f.f_locals['result'], (f.f_locals['nonce'] + '[3, 2]').encode())\n"
    "  os._exit(0)",
    "expected in the frames": "import sys\ndef top(nums, k):\n  f, found = "
    "sys._getframe(), []\n  while f: found += [v for v in f.f_locals.values() if "
    "isinstance(v, list) and len(v) == k]; f = f.f_back\n  return found[-1]",
    "generator": "def top(nums, k): yield from sorted(nums)[::-1][:k]",
    "set": "def top(nums, k): return set(nums[:k])",
    "as text": "def top(nums, k): return str(sorted(nums)[::-1][:k])",
    "rising": "def top(nums, k): return sorted(nums)[-k:]",
    "raises": "def top(nums, k): raise KeyError(sorted(nums)[::-1][:k])",
    "no such function": "def bottom(nums, k): return sorted(nums)[:k]",
    "prints": "def top(nums, k): print(sorted(nums)[::-1][:k])",
    "deep": "def top(nums, k):\n  x = []\n  for _ in range(10**5): x = [x]\n  return x",
}
SCRIPT = {
    "difference": "def sum_of(a, b): return a - b",
    "equal to everything": "class A:\n  def __eq__(s, o): return True\n"
    "def sum_of(a, b): return A()",
    "integer equal to everything": "class A(int):\n  def __eq__(s, o): return True\n"
    "  def __ne__(s, o): return False\n  def __hash__(s): return 0\n"
    "def sum_of(a, b): return A()",
    "no exec": "import builtins\nbuiltins.exec = lambda *a: None\n"
    "builtins.compile = lambda *a, **k: ''\ndef sum_of(a, b): return 0",
    "no assertions": "import builtins\nbuiltins.AssertionError = None\n"
    "builtins.eval = builtins.check = None\ndef sum_of(a, b): return 0",
    "ends": "import os\ndef sum_of(a, b): os._exit(0)",
    "ends at once": "raise SystemExit(0)",
    "expected in the frames": "import re, sys\ndef sum_of(a, b):\n"
    "  f = sys._getframe()\n  while f:\n    for v in f.f_locals.values():\n"
    "      m = re.search(r'%d, %d\\) == (\\S+)' % (a, b), str(v))\n"
    "      if m: return int(m[1])\n    f = f.f_back\n  return None",
    "expected in memory": "import gc, re\ndef sum_of(a, b):\n"
    "  for o in gc.get_objects():\n"
    "    m = re.search(r'%d, %d. == (\\d+)' % (a, b), str(o)[:10**5])\n"
    "    if m: return int(m[1])",
    "nonce": "import os, sys\ndef sum_of(a, b):\n  f = sys._getframe(1)\n"
    "  os.write(f.f_locals.get('result', 1), f.f_locals.get('nonce', '').encode())\n"
    "  os._exit(0)",
    "forged replies": "import os, sys\ndef sum_of(a, b):\n  for i in range(3, 99):\n"
    "    try: os.write(i, b'[true]\\n' * 9)\n    except OSError: pass\n  return 0",
    "unknown errors": "class StopTests(BaseException): pass\n"
    "def sum_of(a, b): raise StopTests",
    "end of an iterator": "def sum_of(a, b): raise StopIteration",
    "the function itself": "def sum_of(a, b): return sum_of",
    "not a number": "def sum_of(a, b): return float('nan')",
    "another name": "def add(a, b): return a + b",
    "a value": "sum_of = 3",
}
