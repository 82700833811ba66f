import 'scripts/kernel/kernel.just'

# `just` alone lists the recipes: keep this one first.
_list:
    @{{ quote(just_executable()) }} --list

# Your recipes go below. One that has the name of a framework's recipe replaces it:
#
#     # Run the app with only what the API needs
#     run *args:
#         ENV=dev .venv/bin/python -m app run example-api --with-dependencies "$@"
