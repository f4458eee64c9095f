"""Data planes: what moves once two connectors have agreed, behind one seam (Data Plane Signaling)."""
