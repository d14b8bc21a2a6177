"""What people look at: data taken from a VM or a run (`picture`, `reverse`, `summary`, `differences`), and its drawing.

Data are msgspec structs, so each also has a JSON form (`data.to_json`). Drawing (`draw_*`, `live`) makes rich
renderables from them and looks at no VM.
"""
